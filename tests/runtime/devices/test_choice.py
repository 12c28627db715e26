"""Which device a run gets, and what a self-test says of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.devices import choice, self_test, webgpu
from edgezo_runtime.devices.choice import Found, choose_device
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.gpu import GpuFacts
from edgezo_runtime.devices.self_test import SelfTest
from edgezo_runtime.errors import UsageError

SLOW = SelfTest(0.02, 0.01, 1e-6, "")
FAST = SelfTest(0.001, 0.01, 1e-6, "")


def gpu_of(name: str, *, software: bool = False) -> Any:
    return SimpleNamespace(name=name, facts=GpuFacts(name, None, is_software=software))


def found(monkeypatch: pytest.MonkeyPatch, **ways: tuple[Any, SelfTest | None, str]) -> None:
    monkeypatch.setattr(choice, "look", lambda name: Found(name, *ways[name]))


ABSENT = (None, None, "not installed")


def test_auto_takes_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"cuda": (gpu_of("cuda"), SLOW, ""), "webgpu": (gpu_of("webgpu"), FAST, "")}
    found(monkeypatch, **ways)
    chosen = choose_device("auto")
    assert chosen.device is ways["webgpu"][0]
    assert "1.00 ms a block, a core of the processor 10.00 ms" in chosen.reason


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ((gpu_of("webgpu"), SLOW, ""), "slower than the processor"),
        ((gpu_of("webgpu", software=True), FAST, ""), "a software adapter"),
        ((gpu_of("webgpu"), FAST, "it computes something else"), "something else"),
        (ABSENT, "not installed"),
    ],
)
def test_auto_takes_no_other(way: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, cuda=ABSENT, webgpu=way)
    chosen = choose_device("auto")
    assert chosen.device is CPU
    assert reason in chosen.reason


def test_gpu_prefers_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {
        "cuda": (gpu_of("cuda"), SLOW, ""),
        "webgpu": (gpu_of("webgpu", software=True), FAST, ""),
    }
    found(monkeypatch, **ways)
    assert choose_device("gpu").device is ways["cuda"][0]
    found(monkeypatch, cuda=ABSENT, webgpu=ABSENT)
    with pytest.raises(UsageError, match=r"no GPU can be used .cuda: not installed"):
        choose_device("gpu")


class Broken:
    """A GPU that raises, or gives other numbers."""

    name = "cuda"

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def open(self, graph: Any) -> Any:
        if self._error is not None:
            raise self._error
        return CPU.open(graph)

    put = CPU.put

    def fetch(self, value: Any) -> np.ndarray:
        return CPU.fetch(value) * np.float32(1.01)


def test_a_self_test_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "_MOST_RUNS", 1)
    test = self_test.self_test
    image = Broken(RuntimeError("CUDA error: no kernel image is available for execution"))
    assert "sm_87" in test(image).problem  # type: ignore[arg-type]
    other = Broken(RuntimeError("CUDA failure 35"))
    assert "CUDA failure 35" in test(other).problem  # type: ignore[arg-type]
    wrong = test(Broken(None))  # type: ignore[arg-type]
    assert "something else" in wrong.problem
    assert wrong.difference == pytest.approx(0.01, rel=1e-3)


def test_packaged_graphs_are_what_their_script_makes() -> None:
    pytest.importorskip("onnx")
    from tests.runtime.devices.packaged_graphs import FOLDER, GRAPHS

    assert {path.name for path in FOLDER.glob("*.onnx")} == GRAPHS.keys()
    for name, make in GRAPHS.items():
        assert (FOLDER / name).read_bytes() == make(), name


def test_a_missing_loader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime_ep_webgpu")
    monkeypatch.setattr(webgpu, "_devices", lambda ort: [])
    monkeypatch.setattr(webgpu.sys, "platform", "linux")
    monkeypatch.setattr(webgpu.ctypes.util, "find_library", lambda name: None)
    ort = SimpleNamespace(
        __version__="1.32.0",
        set_default_logger_severity=lambda level: None,
        register_execution_provider_library=lambda name, path: None,
        OrtHardwareDeviceType=SimpleNamespace(GPU=1, CPU=0),
    )
    with pytest.raises(UsageError, match=r"Vulkan loader is missing.*libvulkan1"):
        webgpu._adapter(ort)
