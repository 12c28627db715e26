"""Memory that runs short: the same bits in smaller pieces, then an end with the state saved."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BudgetStopError
from edgezo_runtime.system.memory import resident_bytes, rss_bytes
from edgezo_runtime.system.memory_guard import MemoryGuard
from tests.runtime.engine.test_engine import batch_of, perturbed_scores, probes_of, tiny

MIB = 2**20


class Meter:
    """Resident memory as a test wants it: `high` in the first `times` looks, then nothing."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> int:
        self.left -= 1
        return 200 * MIB if self.left >= 0 else 0


def guard(times: int, available: int = 2**40) -> MemoryGuard:
    return MemoryGuard(100 * MIB, resident=Meter(times), available=lambda: available)


def test_pressure_in_words() -> None:
    assert guard(0).pressure() is None
    assert "210 MB resident of a budget of 105 MB" in str(guard(1).pressure())
    near = MemoryGuard(100 * MIB, margin_bytes=2 * MIB, resident=lambda: 99 * MIB)
    assert near.pressure() is not None
    assert "left to this process" in str(guard(0, available=MIB).pressure())


def test_the_machine_is_not_asked_every_time() -> None:
    asked: list[int] = []

    def available() -> int:
        asked.append(1)
        return 2**40

    watched = MemoryGuard(2**40, resident=lambda: 0, available=available)
    for _ in range(50):
        watched.pressure()
    assert len(asked) < 50


def test_a_machine_that_is_short_is_answered(exported) -> None:
    """Pins a second look, to confirm the first, that was never due and so found nothing."""
    bundle, theta = tiny(exported, "llama", "int8")
    engine = Engine(bundle, guard=guard(0, available=MIB))
    perturbed_scores(engine, theta, batch_of(bundle), probes_of(2, private=True))
    assert "left to this process" in engine.reliefs[0]


def test_resident_memory_is_that_of_the_process() -> None:
    assert abs(resident_bytes() - rss_bytes()) < 8 * MIB


@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_streamed_blocks_change_no_bit(exported, quant) -> None:
    bundle, theta = tiny(exported, "llama", quant)
    batch, probes = batch_of(bundle), probes_of(2, private=True)
    expected = perturbed_scores(Engine(bundle), theta, batch, probes)
    for streamed in ({0}, {1}, {0, 1}):
        engine = Engine(bundle, chunk_tokens=16)
        engine.streamed = frozenset(streamed)
        for first in (0, 1):
            active = {name for name in theta if f".{first}." in name or first == 0}
            plain = perturbed_scores(
                Engine(bundle), theta, batch, probes, active=active, first_active=first
            )
            found = perturbed_scores(
                engine, theta, batch, probes, active=active, first_active=first
            )
            np.testing.assert_array_equal(found, plain)
        np.testing.assert_array_equal(perturbed_scores(engine, theta, batch, probes), expected)


@pytest.mark.parametrize("times", [2, 4, 6])
def test_relief_changes_no_bit_and_is_told(exported, times) -> None:
    bundle, theta = tiny(exported, "llama", "int8")
    batch, probes = batch_of(bundle), probes_of(2, private=True)
    expected = perturbed_scores(Engine(bundle), theta, batch, probes)
    engine = Engine(bundle, guard=guard(times), threads=1)
    np.testing.assert_array_equal(perturbed_scores(engine, theta, batch, probes), expected)
    assert "streaming all 2 blocks" in engine.reliefs[0]
    assert len(engine.reliefs) <= times // 2  # two workers may look at the same time
    assert all("chunks of" in text for text in engine.reliefs[1:])
    np.testing.assert_array_equal(perturbed_scores(engine, theta, batch, probes), expected)


def test_what_was_swapped_out_counts() -> None:
    swapped = MemoryGuard(
        100 * MIB, resident=lambda: 60 * MIB, available=lambda: 2**40, swapped=lambda: 50 * MIB
    )
    assert "swapped out" in str(swapped.pressure())
    swapped = MemoryGuard(
        100 * MIB, resident=lambda: 60 * MIB, available=lambda: 2**40, swapped=lambda: MIB
    )
    assert swapped.pressure() is None


def test_an_arena_above_the_plan_is_trimmed(exported, monkeypatch) -> None:
    bundle, theta = tiny(exported, "llama", "int8")
    batch, probes = batch_of(bundle), probes_of(2, private=True)
    engine = Engine(bundle)
    expected = perturbed_scores(engine, theta, batch, probes)
    shrunk: list[int] = []
    shrink = engine.model.shrink_arena
    monkeypatch.setattr(engine.model, "shrink_arena", lambda: shrunk.append(1) or shrink())
    engine.trim_above = 2**50
    perturbed_scores(engine, theta, batch, probes)
    assert not shrunk
    engine.trim_above = 0
    np.testing.assert_array_equal(perturbed_scores(engine, theta, batch, probes), expected)
    assert shrunk == [1]


def test_the_end_of_the_ladder(exported) -> None:
    bundle, theta = tiny(exported, "llama", "int8")
    engine = Engine(bundle, guard=guard(10**6))
    with pytest.raises(BudgetStopError, match="larger `budget`"):
        perturbed_scores(engine, theta, batch_of(bundle), probes_of(2, private=True))
    engine.guard = None
    engine.close()
    found = perturbed_scores(engine, theta, batch_of(bundle), probes_of(2, private=True))
    expected = perturbed_scores(Engine(bundle), theta, batch_of(bundle), probes_of(2, private=True))
    np.testing.assert_array_equal(found, expected)


def test_refused_memory_is_answered_with_smaller_chunks(exported, monkeypatch) -> None:
    from edgezo_runtime.engine import forward as module
    from edgezo_runtime.engine.sessions import ShortOfMemoryError, run_graph

    bundle, theta = tiny(exported, "llama", "int8")
    batch, probes = batch_of(bundle), probes_of(2, private=True)
    expected = perturbed_scores(Engine(bundle), theta, batch, probes)
    refused: list[int] = []

    def refuse_large(session, outputs, feed):
        if engine.limits.chunk_tokens > 64:
            refused.append(engine.limits.chunk_tokens)
            raise ShortOfMemoryError("onnxruntime was refused memory")
        return run_graph(session, outputs, feed)

    monkeypatch.setattr(module, "run_graph", refuse_large)
    engine = Engine(bundle)
    np.testing.assert_array_equal(perturbed_scores(engine, theta, batch, probes), expected)
    assert refused
    assert [text.split()[-5] for text in engine.reliefs] == ["128", "64"]
