"""The benchmark of steps on a GPU: what it judges, and that it runs."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.benchmarks import device, random_models
from tests.benchmarks.children import Child
from tests.benchmarks.device import Case
from tests.benchmarks.driver_memory import DriverMemory
from tests.runtime.devices.conftest import software_gpu

GB = 10**9


def child(seconds: float, own: int, driver: int | None) -> Child:
    result: dict[str, Any] = {"seconds": [seconds], "device_peak": own, "driver_peak": driver}
    return Child(result, 1.0, 1.0)


def test_two_point_steps_are_judged_by_mezo(capsys: pytest.CaptureFixture[str]) -> None:
    """The middle one of three rounds, and the driver's count where there is one."""
    found = {
        Case("llama-2-7b", "two-point", "edgezo"): [
            child(seconds, 4 * GB, 5 * GB) for seconds in (1.0, 9.0, 2.0)
        ],
        Case("llama-2-7b", "two-point", "torch"): [child(5.0, 14 * GB, 20 * GB)],
        Case("smollm2-135m", "first-order", "edgezo"): [child(0.5, GB, None)],
        Case("smollm2-135m", "first-order", "torch"): [child(0.25, GB, None)],
    }
    targets = {target.name: target for target in device.report(found, 100)}
    values = {name: target.value for name, target in targets.items()}
    assert values == {
        "llama-2-7b, two-point: times as fast as MeZO": 2.5,
        "llama-2-7b, two-point: share of MeZO's memory": 0.25,
        "llama-2-7b, two-point: peak on the GPU in GB": 5.0,
    }
    assert all(target.is_met for target in targets.values())
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-5:] == ["50", "2", "4000.0", "5000.0", "2.5"]
    assert lines[3].split()[-5:] == ["200", "0.5", "1000.0", "-", "0.5"]


def test_torch_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no CUDA device" in (device.why_no_torch("cuda") or "")
    assert device.why_no_torch("cpu") is None
    assert device.why_no_torch("none") == "--torch none"


def test_without_nvml_the_driver_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with DriverMemory() as memory:
        pass
    assert memory.peak_bytes is None


def test_the_shape_is_that_of_smollm2() -> None:
    pytest.importorskip("torch")
    shapes = random_models.shapes_of(random_models.config_of(random_models.SHAPES["smollm2-135m"]))
    sizes = {name: shape for name, shape in shapes.items() if ".layers.29." in name}
    assert sizes["model.layers.29.self_attn.k_proj.weight"] == (192, 576)
    assert shapes["model.embed_tokens.weight"] == (49152, 576)


@pytest.mark.slow
def test_it_runs_on_a_tiny_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    for name, value in software_gpu().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["device", "--tiny", "--torch", "cpu"])
    device.main()
    told = capsys.readouterr().out
    assert "tiny, two-point: times as fast as MeZO" in told
    for kind in device.KINDS:
        for side in ("edgezo", "torch"):
            assert f"tiny, {kind}, {side}" in told
