"""Logits of passes over prompts and tokens are those of the scorers on whole rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.forward import Work
from edgezo_runtime.generation.decode_pass import PromptsPass, TablesPass, TokenPass
from edgezo_runtime.generation.kv_cache import KvCache

ROWS = ([5, 9, 31], [7, 40, 22, 61, 13, 8], [50, 60])
NEXT = (33, 44, 55)


def batch_of(rows: Any, targets: Any) -> Batch:
    """Rows whose last token's successor is scored."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    numbers = np.arange(len(rows))
    return Batch(
        kind="completion",
        example_ids=numbers,
        input_ids=ids,
        lengths=lengths,
        positions=np.stack([numbers, lengths - 1], axis=1),
        targets=np.array(targets),
        label_ids=None,
        row_example=numbers,
        labels=np.full(len(rows), -1),
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


@pytest.fixture
def passes(bundle) -> Any:
    """(engine, params, a cache that has read `ROWS`, the logits behind them)."""
    engine = Engine(bundle)
    generator = np.random.default_rng(0)
    theta = {
        name: (value + generator.normal(0, 0.1, value.shape)).astype(np.float32)
        for name, value in bundle.trainables().items()
    }
    params = SharedParams(theta)
    cache = KvCache(bundle.manifest.graphs, len(ROWS), 40)
    cache.reserve(max(map(len, ROWS)))
    logits = np.zeros((len(ROWS), bundle.manifest.model.vocab_size), np.float32)

    def take(rows: np.ndarray, made: np.ndarray) -> None:
        logits[rows] = made

    def make(work: Work) -> PromptsPass:
        return PromptsPass(work, "all", cache, take)

    def cut(taken: Batch) -> list[Chunk]:
        return engine.cutter().chunks(taken, 1)

    engine.run(batch_of(ROWS, NEXT), params, make, cut)
    cache.lengths = np.array([len(row) for row in ROWS])
    return engine, params, cache, logits


def test_prompts_give_the_logits_that_the_scorer_uses(passes: Any) -> None:
    engine, params, _, logits = passes
    for targets in (NEXT, (1, 2, 3)):
        scores = engine.score(batch_of(ROWS, targets), params)[0]
        found = log_softmax(logits)[np.arange(len(ROWS)), list(targets)]
        np.testing.assert_allclose(found, scores, atol=1e-4)


def test_a_token_behind_a_prompt_is_a_longer_prompt(passes: Any) -> None:
    engine, params, cache, _ = passes
    logits = np.zeros((len(ROWS), engine.bundle.manifest.model.vocab_size), np.float32)

    def take(rows: np.ndarray, made: np.ndarray) -> None:
        logits[rows] = made

    def make(work: Work) -> TokenPass:
        context = TablesPass(work).tables(cache.room + 1)
        positional = TablesPass(work).positional()
        assert not positional  # a llama turns its heads inside the blocks
        return TokenPass(work, cache, context, positional, {}, take)

    def cut(taken: Batch) -> list[Chunk]:
        return [Chunk(np.arange(len(ROWS)), 1, np.empty((0, 2), np.int64), slice(0))]

    cache.reserve(int(cache.lengths.max()) + 1)
    engine.run(batch_of([[n] for n in NEXT], NEXT), params, make, cut, continuing=True)
    longer = [[*row, n] for row, n in zip(ROWS, NEXT, strict=True)]
    scores = engine.score(batch_of(longer, (4, 5, 6)), params)[0]
    found = log_softmax(logits)[np.arange(len(ROWS)), [4, 5, 6]]
    np.testing.assert_allclose(found, scores, atol=1e-4)


def test_cached_keys_do_not_depend_on_what_is_behind_them(passes: Any) -> None:
    """A causal model's: reading a prefix alone gives the same ones."""
    engine, params, cache, _ = passes
    other = KvCache(engine.bundle.manifest.graphs, 1, 40)
    other.reserve(4)
    start = [ROWS[1][:4]]

    def make(work: Work) -> PromptsPass:
        return PromptsPass(work, "all", other, lambda rows, made: None)

    engine.run(batch_of(start, (1,)), params, make, lambda taken: engine.cutter().chunks(taken, 1))
    for block in range(engine.num_blocks):
        pairs = zip(cache.of(block, slice(1, 2)), other.of(block, slice(0, 1)), strict=True)
        for whole, part in pairs:
            np.testing.assert_allclose(whole[:, :, :4], part[:, :, :4], atol=1e-5)
