"""Stages of a pass by themselves: what enters a block, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.chunks import Cutter, Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.forward import ScoringPass, WholePass, Work
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.engine.params import SharedParams
from edgezo_runtime.errors import UsageError
from tests.runtime.tiny_sets import random_set

SIZES = (4, 7, 2)


@pytest.fixture
def engine(bundle) -> Engine:
    return Engine(bundle)


def work_of(engine: Engine, sample: Any = None, seen: list[int] | None = None) -> Work:
    examples = random_set("labels", SIZES, engine.bundle.manifest.tokenizer.pad_id)
    batch = make_batch(examples, range(len(SIZES)))
    params = SharedParams(engine.bundle.trainables())
    return Work(engine.model, batch, params, lambda: (seen or []).append(1), 256, sample)


def chunk_of(engine: Engine, work: Work) -> Any:
    return Cutter.of(engine.bundle.manifest, Limits(1), False).chunks(work.batch, 1)[0]


def test_stages_by_hand_give_the_scores_of_the_engine(engine: Engine) -> None:
    seen = [0]
    work = work_of(engine, seen=seen)
    forward, chunk = WholePass(work, None, 0, None, 0, "all"), chunk_of(engine, work)
    forward.start(chunk)
    for index in range(engine.num_blocks):
        forward.block(index, chunk)
    forward.end(chunk)
    np.testing.assert_array_equal(chunk.scores, engine.score(work.batch, work.params))
    assert seen == [0, 1, 1]  # once behind every block
    assert chunk.hidden is None


def test_groups_become_more_at_their_blocks(engine: Engine) -> None:
    work = work_of(engine)
    code = code_matrices([0.0, 0.1, -0.1])
    forward, chunk = WholePass(work, code, (0, 1, 1), None, 0, "all"), chunk_of(engine, work)
    forward.start(chunk)
    inputs = forward.enter(0, chunk)
    assert chunk.groups == 1
    assert inputs.code[0].shape() == [1, 1]
    assert not inputs.keeps_past
    inputs = forward.enter(1, chunk)
    assert chunk.groups == 3
    np.testing.assert_array_equal(inputs.code[0].numpy(), code[0])
    states = chunk.hidden.numpy().reshape(3, chunk.rows, chunk.tokens, -1)
    np.testing.assert_array_equal(states[1], states[0])
    np.testing.assert_array_equal(states[2], states[0])
    active = chunk.inputs["active"].numpy()
    np.testing.assert_array_equal(active, np.ones((3 * chunk.rows, chunk.tokens), np.float32))


@pytest.mark.parametrize("sample", [None, frozenset({1})])
def test_skipped_blocks_change_nothing(engine: Engine, sample: Any) -> None:
    work = work_of(engine, sample)
    forward, chunk = WholePass(work, None, 0, None, 0, "all"), chunk_of(engine, work)
    forward.start(chunk)
    before = chunk.hidden
    assert forward.skips(0) == (sample is not None)
    assert not forward.skips(1)
    forward.block(0, chunk)
    assert (chunk.hidden is before) == (sample is not None)


@pytest.mark.parametrize("first", [(0,), (0, 1, 0), (1, 0)])
def test_starts_of_groups_ascend(engine: Engine, first: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="one per group, ascending"):
        ScoringPass(work_of(engine), code_matrices([0.1, -0.1]), first)


def test_a_part_of_a_code_is_a_code(engine: Engine) -> None:
    """A pair is coded together, so its first half alone cannot be decoded."""
    with pytest.raises(UsageError, match="1 of 2 groups start early"):
        ScoringPass(work_of(engine), code_matrices([0.1, -0.1]), (0, 1))


def test_adapters_act_from_the_answer_on(engine: Engine) -> None:
    work = work_of(engine)
    forward, chunk = WholePass(work, None, 0, None, 0, "answer"), chunk_of(engine, work)
    forward.start(chunk)
    first = work.batch.first_scored[chunk.index]
    np.testing.assert_array_equal(chunk.by_row["active"].sum(axis=1), chunk.tokens - first)
