"""The device of a run, and its budget in bytes."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.budget import placement
from edgezo_runtime.budget.device_plan import plan_device
from edgezo_runtime.budget.placement import Placement, place
from edgezo_runtime.bundle.manifest_types import GpuGraphs
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.devices.choice import Chosen
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.ledger import WEIGHTS, Ledger
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.errors import DoesNotFitError, UsageError
from tests.runtime.tiny_bundle import make_manifest

MB = 10**6


def gpu_of(total: int | None = None, limit: int | None = None) -> Any:
    ledger = Ledger()
    ledger.limit_bytes = limit
    return SimpleNamespace(name="webgpu", form="gpu", total_bytes=total, ledger=ledger)


@pytest.fixture
def manifest() -> Any:
    made = make_manifest({})
    return dataclasses.replace(made, gpu=GpuGraphs(made.graphs.blocks, made.graphs.blocks[0]))


def chosen(monkeypatch: pytest.MonkeyPatch, gpu: Any) -> None:
    monkeypatch.setattr(placement, "choose_device", lambda wanted: Chosen(gpu, "fast"))


@pytest.mark.parametrize(
    ("budget", "expected"),
    [("4GB", 4 * 10**9), (5, 5), ("50%", 3 * 10**9), ("auto", 4_800_000_000)],
)
def test_a_budget_is_a_size_or_a_share(
    manifest: Any, budget: Any, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(monkeypatch, gpu_of(6 * 10**9))
    found = place(manifest, "gpu", budget)
    assert (found.budget_bytes, found.reason) == (expected, "fast")


def test_a_share_of_what_nobody_knows(manifest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch, gpu_of(None))
    assert place(manifest, "webgpu", "4GB").budget_bytes == 4 * 10**9
    with pytest.raises(UsageError, match=r"nothing tells how much memory.*give a size such as 4GB"):
        place(manifest, "webgpu", "80%")


def test_auto_looks_at_the_bundle_first(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch, gpu_of())
    found = place(make_manifest({}), "auto", "4GB")
    assert found.device is CPU
    assert "has no graphs for GPUs" in found.reason


def test_the_processor_has_no_budget_of_its_own(manifest: Any) -> None:
    assert place(manifest, "cpu") == Placement(CPU)
    with pytest.raises(UsageError, match="`device_budget` 4GB: the run computes on the processor"):
        place(manifest, "cpu", "4GB")


def test_gpus_estimate(manifest: Any) -> None:
    on_gpu = Placement(gpu_of())
    assert on_gpu.settled(TuneConfig()).first_order == 0
    assert on_gpu.settled(TuneConfig(first_order=2)).first_order == 2  # is refused by name later
    assert Placement(CPU).settled(TuneConfig()).first_order == "auto"


def engine_of(limit: int | None, passes: int = 8 * MB) -> Any:
    device = gpu_of(limit=limit)
    device.ledger.limit_bytes = None
    device.ledger.take(30 * MB, WEIGHTS)
    device.ledger.take(passes, "a value")
    device.ledger.limit_bytes = limit
    model = SimpleNamespace(
        device=device, block_bytes=lambda index: 10 * MB, vocabulary_bytes=4 * MB
    )
    return SimpleNamespace(
        model=model, num_blocks=6, limits=Limits(1, 256, fetch_bytes=MB), streamed=frozenset()
    )


@pytest.mark.parametrize(
    ("limit", "streamed", "tokens", "predicted"),
    [
        (None, 0, 256, 72),
        (72, 0, 256, 72),  # 60 of blocks, 4 of the scorers, 8 of passes
        (71, 6, 256, 32),  # two blocks at a time
        (31, 6, 128, 28),
        (25, 6, 32, 25),
    ],
)
def test_blocks_stay_are_streamed_and_chunks_shrink(
    limit: int | None, streamed: int, tokens: int, predicted: int
) -> None:
    engine = engine_of(None if limit is None else limit * MB)
    plan = plan_device(engine)
    assert plan is not None
    assert (plan.streamed, plan.chunk_tokens) == (streamed, tokens)
    assert plan.predicted_bytes == sum(plan.parts().values()) == predicted * MB
    assert (len(engine.streamed), engine.limits.chunk_tokens) == (streamed, tokens)


def test_what_cannot_fit_is_refused_with_what_would_do() -> None:
    with pytest.raises(DoesNotFitError, match=r"smallest that is enough is '24.5\d* ?MB'"):
        plan_device(engine_of(24 * MB))


def test_the_processor_has_no_such_plan() -> None:
    assert plan_device(SimpleNamespace(model=SimpleNamespace(device=CPU))) is None  # type: ignore[arg-type]
