"""Memory that runs short: the same bits in smaller chunks, then an end with the state saved."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.errors import BudgetStopError
from tests.runtime.engine.test_engine import batch_of, perturbed_scores, probes_of, tiny
from tests.runtime.memory_meter import MIB, guard


def test_a_machine_that_is_short_is_answered(exported) -> None:
    """Pins a second look, to confirm the first, that was never due and so found nothing."""
    bundle, theta = tiny(exported, "llama", "int8")
    engine = Engine(bundle, guard=guard(0, available=MIB))
    perturbed_scores(engine, theta, batch_of(bundle), probes_of(2, private=True))
    assert "left to this process" in engine.reliefs[0]


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["fp32", "int8", "w4"])
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
    # over two steps of first-order passes of two minutes, holes took 23 MB more than was planned
    engine.trim_above = 2**50
    monkeypatch.setattr("edgezo_runtime.engine.engine.LONG_PASS_S", 0)
    np.testing.assert_array_equal(perturbed_scores(engine, theta, batch, probes), expected)
    assert shrunk == [1, 1]


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
    from edgezo_runtime.devices.faults import ShortOfMemoryError
    from edgezo_runtime.engine import forward as module
    from edgezo_runtime.engine.sessions import run_graph

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
    told = [text for text in engine.reliefs if "chunks of" in text]
    assert [text.split()[-5] for text in told] == ["128", "64"]
    assert engine.limits.workers == 1  # workers are halved before chunks are


def test_losses_and_gradients_begin_with_an_empty_arena_where_planned_apart(
    exported, monkeypatch
) -> None:
    """The plan of a run of first-order steps measures each by itself."""
    bundle, theta = tiny(exported, "llama", "int8")
    batch, params = batch_of(bundle), SharedParams(theta)
    engine, emptied = Engine(bundle), []
    first_order = FirstOrderGradient(engine, 0)
    monkeypatch.setattr(engine.model, "shrink_arena", lambda: emptied.append(True))

    def count() -> int:
        before = len(emptied)
        engine.score(batch, params)
        engine.score(batch, params)
        first_order.gradient(batch, theta)
        return len(emptied) - before

    assert count() == 0
    engine.apart = True
    assert count() == 2
    with engine.sampling(engine.model.kinds):
        assert count() == 0
