"""Rows longer than a chunk: torch's scores, the same bits as in one run, and never more tokens in a
block than were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine import forward as forward_module
from edgezo_runtime.engine import segmented_rows
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.prefix_cache import PrefixCache
from edgezo_runtime.engine.segmented_rows import segments_of
from edgezo_runtime.engine.sessions import run_graph
from tests.bundles.tiny import tiny_bundle
from tests.conftest import copied
from tests.runtime.engine.test_answer_scope import CACHED, CONTINUING, OTHERS, make_cache, of_blocks
from tests.runtime.engine.test_engine import (
    batch_of,
    names_of_block,
    perturbed_scores,
    probes_of,
    tiny,
)
from tests.runtime.tiny_sets import random_set

LONG = (62, 33, 64, 5, 31, 2, 48)
WHOLE = 10_000
LIMITS = (1, 8, 20, 33, 64)
FAMILIES = [
    ("llama", "fp32"),
    pytest.param("llama", "w4", marks=pytest.mark.slow),
    *(pytest.param(name, "int8", marks=pytest.mark.slow) for name in CONTINUING),
    *(pytest.param(name, "fp32", marks=pytest.mark.slow) for name in (*CONTINUING[1:], *OTHERS)),
]


def watch_blocks(monkeypatch) -> list[tuple[int, int]]:
    """(rows * tokens, tokens before them) of every block run from now on."""
    seen: list[tuple[int, int]] = []

    def spy(session, outputs, feed):
        if "code" in feed:
            rows, tokens, _ = feed["hidden"].shape()
            before = feed["past_lengths"].numpy()
            seen.append((rows * tokens, int(before.max())))
        return run_graph(session, outputs, feed)

    monkeypatch.setattr(forward_module, "run_graph", spy)
    monkeypatch.setattr(segmented_rows, "run_graph", spy)
    return seen


# --- the cut ---


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("limit", [1, 4, 7, 64, 257])
@pytest.mark.parametrize("tokens", [2, 64, 66, 998])
def test_segments_cover_a_row_in_even_steps(rows, limit, tokens):
    segments = segments_of(rows, tokens, limit)
    ends = [segment.stop for segment in segments]
    assert [segment.start for segment in segments] == [0, *ends[:-1]]
    assert ends[-1] == tokens
    for segment in segments:
        size = segment.stop - segment.start
        assert size % 2 == 0
        assert rows * size <= max(limit, 2 * rows)


def test_a_row_of_an_odd_number_of_tokens_is_not_divided():
    assert segments_of(1, 33, 8) == [slice(0, 33)]


# --- what the scores are ---


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "gemma3_text"])
def test_scores_are_those_of_torch(exported, name, scope, monkeypatch):
    from tests.runtime.torch_lora import TorchLora

    bundle, theta = tiny(exported, name, "fp32")
    examples = random_set("completion", LONG, bundle.manifest.tokenizer.pad_id, scored=30)
    batch, seen = make_batch(examples, range(len(LONG))), watch_blocks(monkeypatch)
    found = Engine(bundle, chunk_tokens=10).score(batch, SharedParams(theta), scope=scope)[0]
    assert max(before for _, before in seen) >= 50
    torch_model = TorchLora(exported(name).model, bundle)
    score = torch_model.scores if scope == "all" else torch_model.answer_scores
    tensors = torch_model.tensors(theta)
    # One by one: of padding that a window leaves nothing to see torch makes NaN.
    alone = [score(tensors, make_batch(examples, [row])) for row in range(len(LONG))]
    expected = np.concatenate([scores.detach().numpy() for scores in alone])
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()  # order of sums


# --- the same bits ---


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize(("name", "quant"), FAMILIES)
def test_segments_change_no_bit(exported, name, quant, scope):
    bundle, theta = tiny(exported, name, quant)
    batch = batch_of(bundle, "completion", LONG, scored=99)
    ways = ((2, True), (1, False), (2, False), (5, True))
    for groups, private in ways if name == "llama" else ways[:2]:
        probes = probes_of(groups, private)
        whole, *cut = (
            perturbed_scores(Engine(bundle, chunk_tokens=limit), theta, batch, probes, scope=scope)
            for limit in (WHOLE, *LIMITS)
        )
        for scores in cut:
            np.testing.assert_array_equal(scores, whole)


def test_rank_one_changes_no_bit(tmp_path):
    """Pins an adapter of rank 1 whose last one to three tokens took another kernel."""
    path = copied(tmp_path / "bundle", tiny_bundle, "llama", "fp32", (1, 1.0))
    bundle = Bundle.open(path)
    generator = np.random.default_rng(1)
    theta = {
        name: generator.normal(0, 0.1, value.shape).astype(np.float32)
        for name, value in bundle.trainables().items()
    }
    batch = batch_of(bundle, "completion", LONG, scored=99)
    whole = Engine(bundle, chunk_tokens=WHOLE).score(batch, SharedParams(theta))
    for limit in (2, 6, 10, 22):
        found = Engine(bundle, chunk_tokens=limit).score(batch, SharedParams(theta))
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_blocks_run_once_for_all_groups_change_no_bit(exported, quant):
    """Before the first block that is perturbed a row is shorter by the number of groups."""
    bundle, theta = tiny(exported, "llama", quant)
    batch, probes = batch_of(bundle, "completion", LONG), probes_of(2, private=True)
    options = {"active": names_of_block(bundle, 1), "first_active": 1}
    whole, *cut = (
        perturbed_scores(Engine(bundle, chunk_tokens=limit), theta, batch, probes, **options)
        for limit in (WHOLE, 16, 64)
    )
    for scores in cut:
        np.testing.assert_array_equal(scores, whole)


def test_cached_states_of_segments_are_those_of_whole_rows(exported, tmp_path):
    bundle, theta = tiny(exported, "llama", "int8")
    examples = random_set("completion", LONG, bundle.manifest.tokenizer.pad_id)
    width, results = bundle.manifest.model.hidden_size, []
    batch, probes = batch_of(bundle, "completion", LONG), probes_of(2, private=True)
    for limit in (WHOLE, 8):
        cache = PrefixCache(tmp_path / "cache", examples.sequence_lengths(), width)
        engine = Engine(bundle, chunk_tokens=limit)
        options = {"active": names_of_block(bundle, 1), "first_active": 1, "cache_block": 1}
        for _ in range(2):
            results.append(perturbed_scores(engine, theta, batch, probes, cache=cache, **options))
        cache.close()
    for scores in results[1:]:
        np.testing.assert_array_equal(scores, results[0])


@pytest.mark.parametrize(("name", "quant"), CACHED)
def test_prompts_read_in_segments_leave_the_same_keys(exported, name, quant, tmp_path, monkeypatch):
    bundle, theta = tiny(exported, name, quant)
    examples = random_set("labels", LONG, bundle.manifest.tokenizer.pad_id)
    batch, probes = batch_of(bundle, "labels", LONG), probes_of(2, private=True)
    seen, results = watch_blocks(monkeypatch), []
    for limit in (WHOLE, 8):
        engine = Engine(bundle, chunk_tokens=limit)
        cache = make_cache(engine, examples, tmp_path)
        options = {"active": of_blocks(bundle, 1), "first_active": 1, "cache_block": 1}
        seen.clear()
        results.append(perturbed_scores(engine, theta, batch, probes, cache=cache, **options))
        cache.close()
    assert max(tokens for tokens, _ in seen) == 8
    np.testing.assert_array_equal(*results)


# --- the limit ---


@pytest.mark.parametrize("limit", [8, 20, 30])
@pytest.mark.parametrize("groups", [1, 2])
def test_no_block_sees_more_tokens_than_a_chunk_has(exported, groups, limit, monkeypatch):
    bundle, theta = tiny(exported, "llama", "fp32")
    batch = batch_of(bundle, "completion", LONG)
    seen = watch_blocks(monkeypatch)
    perturbed_scores(
        Engine(bundle, chunk_tokens=limit), theta, batch, probes_of(groups, private=True)
    )
    assert max(tokens for tokens, _ in seen) <= limit
    assert len(seen) > 2 * len(LONG)


@pytest.mark.parametrize("name", ["roberta", "gpt_neox"])
def test_blocks_that_cannot_continue_run_whole(exported, name):
    bundle, theta = tiny(exported, name, "fp32")
    batch = batch_of(bundle, "labels", (40, 33, 5))
    whole, cut = (
        Engine(bundle, chunk_tokens=limit).score(batch, SharedParams(theta)) for limit in (WHOLE, 8)
    )
    np.testing.assert_array_equal(whole, cut)
