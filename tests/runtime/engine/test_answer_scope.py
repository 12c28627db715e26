"""Adapters that act on answers only: torch's scores, the same bits, and nothing computed twice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.prefix_cache import AnswerCache
from edgezo_runtime.errors import DivergedError
from tests.runtime.engine.test_engine import (
    FAMILIES,
    KINDS,
    SIZES,
    batch_of,
    count_blocks,
    perturbed_scores,
    probes_of,
    tiny,
)
from tests.runtime.tiny_sets import random_set

ALL = range(len(SIZES))
CONTINUING = ("llama", "mistral", "qwen2", "gpt2", "opt", "gemma3_text")
OTHERS = ("gemma2", "granite", "olmo2", "phi3", "qwen3", "smollm3", "starcoder2")
CACHED = [
    ("llama", "fp32"),
    ("llama", "int8"),
    ("llama", "w4"),
    ("gpt2", "fp32"),
    ("mistral", "int8"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_those_of_torch(exported, name, kind):
    from tests.runtime.torch_lora import TorchLora

    bundle, theta = tiny(exported, name, "fp32")
    batch = batch_of(bundle, kind)
    found = Engine(bundle).score(batch, SharedParams(theta), scope="answer")[0]
    torch_model = TorchLora(exported(name).model, bundle)
    expected = torch_model.answer_scores(torch_model.tensors(theta), batch).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()  # order of sums
    everywhere = Engine(bundle).score(batch, SharedParams(theta))[0]
    assert np.abs(everywhere - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize(
    "name", [*CONTINUING, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_last_tokens_alone_score_like_whole_prompts(exported, name, tmp_path):
    """What is kept is rounded to float16; the rest is the same model."""
    bundle, theta = tiny(exported, name, "fp32")
    engine = Engine(bundle)
    assert bundle.manifest.graphs.continues
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    batch = make_batch(examples, range(len(SIZES)))
    cache = make_cache(engine, examples, tmp_path)
    for groups, private in ((1, False), (2, True), (2, False)):
        probes = probes_of(groups, private)
        options = {"active": of_blocks(bundle, 1), "first_active": 1, "scope": "answer"}
        whole = perturbed_scores(engine, theta, batch, probes, **options)
        found = perturbed_scores(
            engine, theta, batch, probes, cache=cache, cache_block=1, **options
        )
        np.testing.assert_allclose(found, whole, rtol=2e-3, atol=2e-3)
        assert np.corrcoef(found.ravel(), whole.ravel())[0, 1] > 0.99999


def test_models_that_cannot_continue(exported):
    """An encoder sees both ways; the rotary embedding of the others is outside of attention."""
    for name in ("roberta", "llama-narrow", "gpt_neox"):
        assert not tiny(exported, name, "fp32")[0].manifest.graphs.continues


def of_blocks(bundle, first: int) -> set[str]:
    return {info.name for info in bundle.manifest.trainables if info.block >= first}


def make_cache(engine, examples, folder, block=1, **options) -> AnswerCache:
    width = engine.bundle.manifest.model.hidden_size
    lengths = examples.sequence_lengths()
    layout = KeyValueLayout.of(engine.bundle.manifest.graphs, block)
    return AnswerCache(folder / "cache", lengths, width, layout, **options)


@pytest.fixture
def answers(exported, tmp_path):
    """A function that scores prompts by their last tokens: (indices, groups, options) -> scores."""

    class Answers:
        def __init__(self, name="llama", quant="int8"):
            self.bundle, self.theta = tiny(exported, name, quant)
            self.engine = Engine(self.bundle)
            pad = self.bundle.manifest.tokenizer.pad_id
            self.examples = random_set("labels", SIZES, pad)
            self.cache = self.make()

        def make(self, **options):
            return make_cache(self.engine, self.examples, tmp_path, **options)

        def score(self, indices=ALL, groups=2, private=True, engine=None):
            batch = make_batch(self.examples, indices)
            return perturbed_scores(
                engine or self.engine,
                self.theta,
                batch,
                probes_of(groups, private),
                active=of_blocks(self.bundle, 1),
                first_active=1,
                cache=self.cache,
                cache_block=1,
            )

    return Answers


@pytest.mark.parametrize(("name", "quant"), CACHED)
def test_chunks_change_no_bit(answers, name, quant):
    own = answers(name, quant)
    engines = [Engine(own.bundle, chunk_tokens=size) for size in (1, 7, 10_000)]
    for groups, private in ((1, False), (2, True), (2, False), (5, True)):
        first = own.score(groups=groups, private=private)
        for engine in engines:
            other = own.score(groups=groups, private=private, engine=engine)
            np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize(("name", "quant"), CACHED)
def test_a_row_has_the_same_bits_alone(answers, name, quant):
    own = answers(name, quant)
    together = own.score(private=False)
    for index in range(len(SIZES)):
        np.testing.assert_array_equal(own.score([index], private=False)[:, 0], together[:, index])


@pytest.mark.parametrize("streamed", [{0, 1}, {1}])
@pytest.mark.parametrize("wave_bytes", [1, 4000, 48 << 20])
def test_streamed_blocks_change_no_bit(answers, streamed, wave_bytes):
    """Prompts that are missing go through the blocks together, before their last tokens do."""
    own = answers("llama", "int8")
    expected = [own.score(), own.score()]
    engine = Engine(own.bundle, chunk_tokens=8)
    engine.streamed = frozenset(streamed)
    engine.limits = dataclasses.replace(engine.limits, wave_bytes=wave_bytes)
    own.cache.close()
    own.cache = own.make()
    for value in expected:  # made, then found
        np.testing.assert_array_equal(own.score(engine=engine), value)


def test_found_or_made_gives_the_same_bits(answers, monkeypatch):
    own = answers()
    first = own.score()
    ran = count_blocks(monkeypatch)
    np.testing.assert_array_equal(own.score(), first)
    assert 0 not in ran
    own.cache.close()
    own.cache = own.make()
    own.score([1, 3])
    np.testing.assert_array_equal(own.score(), first)
    own.cache.close()
    own.cache = own.make(max_bytes=own.cache.size_bytes // 2)
    ran.clear()
    for _ in range(2):
        np.testing.assert_array_equal(own.score(), first)
    assert ran.count(0) > 1


def test_a_key_beyond_float16_stops_the_run(answers):
    own = answers()
    states, _ = own.cache.gather([0, 1], np.array(SIZES[:2]))
    heads, width = own.bundle.manifest.graphs.blocks[1].past
    keys = np.zeros((1, heads, SIZES[1] - 1, width), np.float32)
    states.fill(np.array([1]), 1, 0, keys)
    with pytest.raises(DivergedError, match="does not fit"):
        states.fill(np.array([1]), 1, 1, keys + 1e6)
    hidden = np.zeros(own.bundle.manifest.model.hidden_size, np.float32)
    own.cache.put(states, 1, 1, hidden)
    with pytest.raises(DivergedError, match="does not fit"):
        own.cache.put(states, 1, 1, hidden - 1e6)


def test_a_full_disk_only_costs_time(answers, monkeypatch):
    own = answers()
    expected = own.score()
    own.cache.close()
    own.cache = own.make()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgezo_runtime.system.float16_file.os.pwritev", full)
    ran = count_blocks(monkeypatch)
    for _ in range(2):
        np.testing.assert_array_equal(own.score(), expected)
    assert ran.count(0) > 1


def test_all_blocks_may_train(answers, tmp_path):
    """With nothing before the first block that trains, its entry is the embedding."""
    own = answers("llama", "fp32")
    cache = make_cache(own.engine, own.examples, tmp_path, block=0)
    batch, probes = make_batch(own.examples, ALL), probes_of(2, private=True)
    found = perturbed_scores(own.engine, own.theta, batch, probes, cache=cache)
    whole = perturbed_scores(own.engine, own.theta, batch, probes, scope="answer")
    np.testing.assert_allclose(found, whole, atol=5e-3)


def test_a_cache_without_a_file_forgets_the_numbers(answers):
    """Found after they were made, and zero: what a rehearsal needs."""
    own = answers("llama", "int8")
    layout = own.cache.layout
    lengths = own.examples.sequence_lengths()
    cache = AnswerCache(None, lengths, own.bundle.manifest.model.hidden_size, layout)
    assert cache.gather([0, 1], lengths[:2].astype(np.int64))[1].tolist() == [0, 1]
    kept, own.cache = own.cache, cache
    own.score()
    states, missing = cache.gather([0, 1], lengths[:2].astype(np.int64))
    assert missing.size == 0
    assert not states.past.any()
    assert not states.hidden.any()
    cache.close()
    own.cache = kept
