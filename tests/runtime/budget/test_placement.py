"""The device of a run, and its budget in bytes."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.budget import placement
from edgezo_runtime.budget.device_plan import plan_device
from edgezo_runtime.budget.memory_model import BackwardMemoryModel
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


def test_gpus_estimate_with_bundles_that_have_no_backward_graphs_for_them(manifest: Any) -> None:
    on_gpu = Placement(gpu_of())
    assert on_gpu.settled(TuneConfig(), manifest).first_order == 0
    assert "made none" in (on_gpu.why_no_first_order(manifest) or "")
    asked = on_gpu.settled(TuneConfig(first_order=2), manifest)  # is refused by name later
    assert asked.first_order == 2
    assert Placement(CPU).settled(TuneConfig(), manifest).first_order == "auto"
    derived = dataclasses.replace(manifest, gpu=dataclasses.replace(manifest.gpu, backward=()))
    assert on_gpu.settled(TuneConfig(), derived).first_order == "auto"


def engine_of(limit: int | None, passes: int = 8 * MB, gradient: int = 0) -> Any:
    device = gpu_of(limit=limit)
    device.ledger.limit_bytes = None
    device.ledger.take(30 * MB, WEIGHTS)
    for kind, size in (("scores", passes), ("gradient", gradient)):
        device.ledger.passes = kind
        device.ledger.take(size, "a value")
        device.ledger.give(size, "a value")
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


BACK = BackwardMemoryModel(
    tokens=256,
    telling_rows=2,
    weights=3 * MB,
    kept=2 * MB,
    sums=0,
    parts=5,
    past=MB,
    waiting=4 * MB,
)
"""Of a part: 2 MB of states at the entries of blocks, 1 MB at the block where it waits."""


@pytest.mark.parametrize(
    ("limit", "streamed", "tokens", "parts"),
    [
        (None, 0, 256, (60, 4, 12, 4)),  # the gradient takes 5 and 2 of kept states
        (79, 6, 256, (20, 4, 12, 4)),
        (37, 6, 128, (20, 4, 8, 4)),  # chunks of scores shrink, parts that go back do not: 5 and 3
    ],
)
def test_states_that_are_kept_for_the_way_back_count(
    limit: int | None, streamed: int, tokens: int, parts: tuple[int, ...]
) -> None:
    engine = engine_of(None if limit is None else limit * MB, 12 * MB, 5 * MB)
    engine.limits = Limits(1, 256, fetch_bytes=MB, wave_bytes=4 * MB)
    formula: Any = SimpleNamespace(back=BACK, bytes_per_token=MB // 256)
    plan = plan_device(engine, formula)
    assert plan is not None
    assert (plan.streamed, plan.chunk_tokens) == (streamed, tokens)
    sizes = tuple(round(size / MB) for size in plan.parts().values())
    assert sizes == parts


def test_what_cannot_fit_is_refused_with_what_would_do() -> None:
    with pytest.raises(DoesNotFitError, match=r"smallest that is enough is '24.5\d* ?MB'"):
        plan_device(engine_of(24 * MB))


def test_the_processor_has_no_such_plan() -> None:
    assert plan_device(SimpleNamespace(model=SimpleNamespace(device=CPU))) is None  # type: ignore[arg-type]
