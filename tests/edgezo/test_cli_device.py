"""`--device`: what the command line says of devices. Passes on GPUs: tests/runtime/devices."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.edgezo.conftest import Invoke, Tiny, start, tune_args
from tests.runtime.devices.conftest import software_gpu


def test_a_device_budget_needs_a_device(invoke: Invoke, tiny: Tiny) -> None:
    result = invoke(*tune_args(tiny, "--device-budget", "4GB"), code=2)
    assert "--device cpu computes on the processor, whose memory --budget limits" in result.output


def test_doctor_lists_devices(invoke: Invoke) -> None:
    report = json.loads(invoke("doctor", "--json", code=None).stdout)
    assert [way["name"] for way in report["devices"]] == ["cuda", "webgpu"]
    for way in report["devices"]:
        assert way["problem"] or way["difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [("--lr", 0.001, "--eps", 0.01), ("--first-order-lr", 0.001)],
    ids=["estimates", "exact gradients"],
)
def test_a_killed_run_on_a_gpu_ends_with_the_bits_of_a_whole_one(
    steps: tuple[object, ...], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in software_gpu().items():
        monkeypatch.setenv(name, value)
    more = (*steps, "--device", "webgpu", "--json", "--no-verify")
    args = tune_args(tiny, *more)
    args[1] = tiny.fp32

    def ended(folder: Path) -> dict[str, Any]:
        process = start(*args, cwd=folder)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        result: dict[str, Any] = json.loads(out)
        return result

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    expected = ended(whole)
    assert expected["device"] == "webgpu"
    assert 0 < expected["device_fetched_bytes"] < expected["device_sent_bytes"]
    killed = start(*args, cwd=cut)
    end = time.monotonic() + 120
    while time.monotonic() < end and steps_of(cut) < 2:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert ended(cut)["adapter_sha256"] == expected["adapter_sha256"]


def steps_of(folder: Path) -> int:
    """Steps that a run has taken so far."""
    metrics = folder / "run/metrics.jsonl"
    return metrics.read_text().count('"step"') if metrics.exists() else 0
