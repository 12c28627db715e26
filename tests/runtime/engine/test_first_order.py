"""Gradients of the last blocks: torch's, and the same bits however the work is shared out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.errors import UsageError
from tests.runtime.tiny_sets import LABEL_TOKENS, random_set

SIZES = (2, 5, 9, 21, 1, 13, 16, 17, 30, 33, 8, 3)
KINDS = tuple(LABEL_TOKENS)
FAMILIES = ("llama", "gpt2", "roberta")
"""`tests/models` has all others."""


def tiny(exported, name: str, quant: str = "fp32"):
    """A tiny bundle and adapters that do something."""
    bundle = exported(name).bundle(quant).bundle
    generator = np.random.default_rng(1)
    theta = {
        key: (value + generator.normal(0, 0.1, value.shape)).astype(np.float32)
        for key, value in bundle.trainables().items()
    }
    return bundle, theta


def batch_of(bundle, kind="labels", **options):
    examples = random_set(kind, SIZES, bundle.manifest.tokenizer.pad_id, **options)
    return make_batch(examples, range(len(SIZES)))


def torch_gradient(exported, name, bundle, theta, batch, **options):
    from tests.runtime.torch_lora import TorchLora

    attention = "sdpa" if bundle.manifest.model.task == "masked-lm" else "eager"
    return TorchLora(exported(name).model, bundle, attention).gradient(theta, batch, **options)


def assert_close(found, expected) -> None:
    """float32 on our side, float64 on torch's."""
    for name, grad in found.items():
        assert grad.dtype == np.float32
        assert grad.shape == expected[name].shape
        assert np.abs(grad - expected[name]).max() <= 2e-5 * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_is_that_of_torch(exported, name, kind):
    bundle, theta = tiny(exported, name)
    batch = batch_of(bundle, kind)
    found = FirstOrderGradient(Engine(bundle), 0).gradient(batch, theta)
    loss, expected = torch_gradient(exported, name, bundle, theta, batch)
    assert found.losses.mean() == pytest.approx(loss, abs=1e-5)
    assert set(found.gradients) == {i.name for i in bundle.manifest.trainables if i.trains}
    assert_close(found.gradients, expected)


@pytest.mark.parametrize("name", ["llama", "roberta"])
def test_gradient_of_adapters_on_the_answer(exported, name):
    bundle, theta = tiny(exported, name)
    batch = batch_of(bundle)
    found = FirstOrderGradient(Engine(bundle), 0).gradient(batch, theta, scope="answer")
    _, expected = torch_gradient(exported, name, bundle, theta, batch, answer=True)
    assert_close(found.gradients, expected)


@pytest.mark.parametrize(
    "name", ["llama", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gpt2", "roberta"))]
)
def test_int8_gradient_points_the_same_way(exported, name):
    """The weights differ by what int8 rounds, and the forward pass rounds activations as well."""
    bundle, theta = tiny(exported, name, "int8")
    batch = batch_of(bundle)
    found = FirstOrderGradient(Engine(bundle), 0).gradient(batch, theta).gradients
    _, expected = torch_gradient(exported, name, bundle, theta, batch)
    ours, theirs = (np.concatenate([g[n].ravel() for n in found]) for g in (found, expected))
    assert ours @ theirs > 0.99 * np.linalg.norm(ours) * np.linalg.norm(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["fp32", "int8", "w4"])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_how_the_work_is_shared_out(exported, kind, quant):
    bundle, theta = tiny(exported, "llama", quant)
    batch = batch_of(bundle, kind)
    usual, small, alone, streamed = (Engine(bundle, chunk_tokens=n) for n in (256, 16, 256, 256))
    alone.limits = dataclasses.replace(alone.limits, workers=1)
    streamed.streamed = frozenset(range(streamed.num_blocks))
    expected = FirstOrderGradient(usual, 0, part_tokens=64).gradient(batch, theta)
    for engine in (small, alone, streamed):
        found = FirstOrderGradient(engine, 0, part_tokens=64).gradient(batch, theta)
        np.testing.assert_array_equal(found.losses, expected.losses)
        for name, grad in expected.gradients.items():
            np.testing.assert_array_equal(found.gradients[name], grad)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_a_plain_evaluation(exported, kind):
    bundle, theta = tiny(exported, "llama", "int8")
    batch = batch_of(bundle, kind)
    engine = Engine(bundle)
    found = FirstOrderGradient(engine, 1).gradient(batch, theta).losses
    expected = example_losses(batch, engine.score(batch, SharedParams(theta)))[0]
    np.testing.assert_array_equal(found, expected)


def test_the_tail_alone_keeps_states(exported, monkeypatch):
    """One block's entry a part, and the gradients of that block, the same as of all blocks."""
    bundle, theta = tiny(exported, "llama")
    batch = batch_of(bundle)
    engine = Engine(bundle)
    whole, tail = (FirstOrderGradient(engine, first) for first in (0, 1))
    assert tail.names == tuple(n for n in whole.names if n.startswith("model.layers.1."))
    expected = whole.gradient(batch, theta).gradients
    kept: list[int] = []
    engine_run = Engine.run

    def run(self, batch, params, make, cut, **options):
        def watched(work):
            forward = make(work)
            original = forward.end

            def ending(chunk):
                kept.append(len(chunk.kept))
                original(chunk)

            forward.end = ending
            return forward

        return engine_run(self, batch, params, watched, cut, **options)

    monkeypatch.setattr(Engine, "run", run)
    found = tail.gradient(batch, theta).gradients
    assert set(kept) == {1}
    for name in tail.names:
        np.testing.assert_array_equal(found[name], expected[name])


def test_cached_prefix_gives_nearly_the_same(exported, tmp_path):
    bundle, theta = tiny(exported, "llama")
    batch = batch_of(bundle)
    cache = PrefixCache(tmp_path / "states", batch.lengths, bundle.manifest.model.hidden_size)
    tail = FirstOrderGradient(Engine(bundle), 1)
    expected = tail.gradient(batch, theta)
    first, second = (tail.gradient(batch, theta, cache=cache, cache_block=1) for _ in range(2))
    for name, grad in expected.gradients.items():
        np.testing.assert_array_equal(first.gradients[name], second.gradients[name])
        # The cache keeps float16.
        np.testing.assert_allclose(second.gradients[name], grad, atol=5e-3 * np.abs(grad).max())
    cache.close()


@pytest.mark.parametrize(
    "name", ["llama", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gemma2", "gpt2"))]
)
@pytest.mark.parametrize("streamed", [False, True], ids=["resident", "streamed"])
def test_last_tokens_alone_give_the_gradient_of_adapters_on_them(
    exported, tmp_path, name, streamed
):
    """Rows of different lengths, an odd number of them, behind prompts that are kept."""
    bundle, theta = tiny(exported, name)
    examples = random_set("labels", SIZES[:11], bundle.manifest.tokenizer.pad_id)
    batch = make_batch(examples, range(11))
    layout = KeyValueLayout.of(bundle.manifest.graphs, 0)
    width = bundle.manifest.model.hidden_size
    cache = AnswerCache(tmp_path / "states", batch.lengths, width, layout)
    engine = Engine(bundle)
    if streamed:
        engine.streamed = frozenset(range(engine.num_blocks))
    tail = FirstOrderGradient(engine, 0)
    first, second = (tail.gradient(batch, theta, "answer", cache) for _ in range(2))
    _, expected = torch_gradient(exported, name, bundle, theta, batch, answer=True)
    for name, grad in first.gradients.items():
        np.testing.assert_array_equal(second.gradients[name], grad)
        # The cache keeps float16.
        np.testing.assert_allclose(grad, expected[name], atol=5e-3 * np.abs(expected[name]).max())
    cache.close()


def test_rows_longer_than_a_segment(exported):
    """Pins states of entry that were overwritten by a block that goes through a row in segments."""
    bundle, theta = tiny(exported, "llama")
    batch = batch_of(bundle)
    segments = FirstOrderGradient(Engine(bundle, chunk_tokens=16), 0).gradient(batch, theta)
    whole = FirstOrderGradient(Engine(bundle, chunk_tokens=4096), 0).gradient(batch, theta)
    for name, grad in whole.gradients.items():
        np.testing.assert_array_equal(segments.gradients[name], grad)


def test_a_bundle_without_backward_graphs_says_why(exported):
    bundle, _ = tiny(exported, "llama")
    engine = Engine(bundle)
    manifest = dataclasses.replace(bundle.manifest, backward="operator Foo has no gradient")
    engine.model.bundle = dataclasses.replace(bundle, manifest=manifest)
    with pytest.raises(UsageError, match=r"llama.*operator Foo has no gradient"):
        FirstOrderGradient(engine, 0)


@pytest.mark.parametrize("first", [-1, 2])
def test_a_block_that_is_not_there_is_refused(exported, first):
    bundle, _ = tiny(exported, "llama")
    with pytest.raises(UsageError, match="has 2"):
        FirstOrderGradient(Engine(bundle), first)
