"""The carried error: against exact gradients, and against what the graphs answer."""

from __future__ import annotations

import tracemalloc
import types

import numpy as np
import pytest

from edgezo_runtime.bundle.manifest_types import LAYER_INPUT, LAYER_SLOPE
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine import carried_error
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.carried_error import NOISE, CarriedError, learning_bytes
from edgezo_runtime.engine.carried_error_pass import IN_IN, IN_OUT, CarriedSite
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.first_order_pass import OrderedSums
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.errors import DivergedError, UsageError
from tests.runtime.tiny_sets import random_set

SIZES = (9, 14, 7, 9, 12)
LAYER = "model.layers.{}.mlp.down_proj.lora_{}"
TAP = f"{LAYER_INPUT}mlp.down_proj"
TOLERANCE = 2e-4


def sites_of(manifest, blocks=(0, 1)):
    scale = manifest.scheme.scale
    names = {block: [LAYER.format(block, factor) for factor in "AB"] for block in blocks}
    return {at: [CarriedSite(TAP, a, b, scale, frozenset({a, b}))] for at, (a, b) in names.items()}


@pytest.fixture
def made(exported):
    """(engine, trainables, bundle)."""
    bundle = exported("llama").bundle("fp32").bundle
    generator = np.random.default_rng(1)
    theta = {
        key: (value + generator.normal(0, 0.1, value.shape)).astype(np.float32)
        for key, value in bundle.trainables().items()
    }
    engine = Engine(bundle)
    yield engine, theta, bundle
    engine.close()


def batch_of(bundle, kind, sizes=SIZES):
    examples = random_set(kind, sizes, bundle.manifest.tokenizer.pad_id, scored=6)
    return examples, make_batch(examples, range(len(sizes)))


def exact(engine, theta, batch, scope):
    names = [LAYER.format(block, "B") for block in (0, 1)]
    return FirstOrderGradient(engine, 0, tensors=names).gradient(batch, theta, scope)


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("kind", ["completion", "candidates", "labels"])
def test_the_last_block_has_the_exact_gradient(made, kind, scope):
    """Nothing lies behind it but the norm and the unembedding, whose derivative is exact."""
    engine, theta, bundle = made
    _, batch = batch_of(bundle, kind)
    found = CarriedError(engine, sites_of(bundle.manifest)).gradient(batch, theta, scope)
    expected = exact(engine, theta, batch, scope)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    name = LAYER.format(1, "B")
    size = np.abs(expected.gradients[name]).max()
    np.testing.assert_allclose(
        found.gradients[name], expected.gradients[name], atol=TOLERANCE * size
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma3_text", "olmo2"])
def test_a_norm_behind_the_layer_has_nearly_the_exact_gradient(exported, name):
    """In the last block: its slope is the derivative but for 1 / H. Without it, little is left."""
    bundle = exported(name).bundle("fp32").bundle
    _, batch = batch_of(bundle, "completion")
    b = LAYER.format(1, "B")
    engine = Engine(bundle)
    expected = exact(engine, bundle.trainables(), batch, "all").gradients[b]
    alike = {}
    for slope in (f"{LAYER_SLOPE}mlp.down_proj", None):
        own = (TAP, LAYER.format(1, "A"), b, bundle.manifest.scheme.scale, frozenset({b}))
        carried = CarriedError(engine, {1: [CarriedSite(*own, slope=slope)]})
        found = carried.gradient(batch, bundle.trainables()).gradients[b]
        size = np.linalg.norm(found) * np.linalg.norm(expected)
        alike[slope is not None] = float((found * expected).sum() / size)
        if slope is not None:
            assert 0.9 < np.linalg.norm(found) / np.linalg.norm(expected) < 1.1
    engine.close()
    assert alike[True] > 0.98
    assert alike[False] < alike[True]


def test_the_gradient_of_a_is_that_of_differences(made):
    """The exact one in the last block: a change of A changes the loss as its gradient says."""
    engine, theta, bundle = made
    _, batch = batch_of(bundle, "completion")
    name = LAYER.format(1, "A")
    found = CarriedError(engine, sites_of(bundle.manifest)).gradient(batch, theta)
    direction = np.random.default_rng(2).normal(0, 1, theta[name].shape).astype(np.float32)
    losses = []
    for sign in (1, -1):
        moved = theta | {name: theta[name] + np.float32(sign * 1e-2) * direction}
        losses.append(CarriedError(engine, sites_of(bundle.manifest)).gradient(batch, moved).losses)
    slope = (losses[0] - losses[1]).mean() / 2e-2
    assert (found.gradients[name] * direction).sum() == pytest.approx(slope, rel=2e-2)


def test_the_error_reaches_earlier_blocks_by_the_learned_derivative(made):
    """With the true derivative of the block behind it as `carries`, summed over tokens."""
    engine, theta, bundle = made
    _, batch = batch_of(bundle, "completion")
    carried = CarriedError(engine, sites_of(bundle.manifest))
    before = carried.gradient(batch, theta).gradients[LAYER.format(0, "B")]
    width = bundle.manifest.model.hidden_size
    carried.carries = {1: 2 * np.eye(width, dtype=np.float32)}
    after = carried.gradient(batch, theta).gradients
    np.testing.assert_allclose(after[LAYER.format(0, "B")], 3 * before, rtol=1e-4, atol=1e-6)


def test_a_mean_derivative_is_learned(made, exported, monkeypatch):
    """Its columns are what the block adds when a number of its entry changes, mean over tokens."""
    engine, _, bundle = made
    monkeypatch.setattr(carried_error, "LEARNED", 1)
    examples, batch = batch_of(bundle, "completion", (4,))
    carried = CarriedError(engine, sites_of(bundle.manifest))
    assert carried.probed == (1,)
    same = [make_batch(examples, [0] * 20) for _ in range(10)]  # each row by noise of its own
    assert carried.learn(same, seed=3) == 2 * 200
    learned = carried.carries[1]
    runner = exported("llama").bundle("fp32")
    params = {name: value[None] for name, value in bundle.trainables().items()}
    ids = batch.input_ids[:1, : batch.lengths[0]]
    hidden, context = runner.prologue(ids)
    own = context | {"active": np.ones(ids.shape, np.float32)}
    hidden = runner.block(0, hidden, own, params)
    expected = np.zeros_like(learned, dtype=np.float64)
    width, tokens = len(learned), ids.shape[1]
    for token in range(tokens):
        size = NOISE * np.sqrt(np.mean(hidden[0, token] ** 2))
        for column in range(width):
            sides = []
            for sign in (1, -1):
                moved = hidden.copy()
                moved[0, token, column] += sign * size
                sides.append(runner.block(1, moved, own, params)[0, token] - moved[0, token])
            expected[:, column] += (sides[0] - sides[1]) / (2 * size) / tokens
    alike = (learned * expected).sum()
    alike /= np.linalg.norm(learned) * np.linalg.norm(expected)
    assert alike > 0.9


def test_a_pass_that_runs_again_is_not_counted_twice(made, monkeypatch):
    """As where memory is short at its end: learning begins anew."""
    engine, _, bundle = made
    monkeypatch.setattr(carried_error, "LEARNED", 1)
    _, batch = batch_of(bundle, "completion")
    carried = CarriedError(engine, sites_of(bundle.manifest))
    assert carried.learn([batch, batch], seed=3) == 4 * len(SIZES)
    expected = carried.carries[1]
    run, calls = engine.run, []

    def again(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            run(*args, **kwargs)
        return run(*args, **kwargs)

    monkeypatch.setattr(engine, "run", again)
    assert carried.learn([batch, batch], seed=3) == 8 * len(SIZES)
    assert len(calls) == 4
    np.testing.assert_array_equal(carried.carries[1], expected)


def test_learning_takes_no_more_than_its_bytes():
    """Sums of two blocks, one part that waits for another; then the solution of each."""
    width, blocks, sums = 512, (3, 4), OrderedSums()
    generator = np.random.default_rng(0)
    made = generator.normal(size=(width, width)).astype(np.float32)
    known = (made @ made.T + width * np.eye(width)).astype(np.float32)
    parts = [types.SimpleNamespace(), types.SimpleNamespace()]
    tracemalloc.start()
    try:
        sums.begin(parts)
        for block in blocks:
            for part in reversed(parts):
                own = {f"{block}.{IN_IN}": known.copy(), f"{block}.{IN_OUT}": made.copy()}
                sums.add(part, block, own)
                del own
        found = {block: carried_error._solve(sums.total, block) for block in blocks}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    bound = learning_bytes(width, len(blocks))
    assert 0.7 * bound < peak < 1.01 * bound
    assert not sums.total
    known = known.astype(np.float64)
    known += carried_error.RIDGE * np.trace(known) / width * np.eye(width)
    np.testing.assert_allclose(known @ found[3].T, made, atol=1e-3)


def test_the_bits_do_not_depend_on_chunks_nor_on_a_cache(made):
    engine, theta, bundle = made
    examples, batch = batch_of(bundle, "completion")
    carried = CarriedError(engine, sites_of(bundle.manifest, (1,)))
    width = bundle.manifest.model.hidden_size
    first = carried.gradient(batch, theta)
    engine.shrink("nothing")
    again = carried.gradient(batch, theta)
    name = LAYER.format(1, "B")
    np.testing.assert_array_equal(again.gradients[name], first.gradients[name])
    cache = PrefixCache(None, examples.sequence_lengths(), width)
    kept = carried.gradient(batch, theta, "all", cache, 1)  # in float16
    np.testing.assert_allclose(
        kept.gradients[name], first.gradients[name], atol=2e-2 * np.abs(first.gradients[name]).max()
    )
    cache.close()


def test_an_earlier_layer_takes_the_error_at_the_entry(made):
    """As if it were the last one of a block before, with the error carried one block further."""
    engine, theta, bundle = made
    _, batch = batch_of(bundle, "completion")
    b = LAYER.format(1, "B")
    width = bundle.manifest.model.hidden_size
    found = {}
    for last in (True, False):
        site = CarriedSite(TAP, LAYER.format(1, "A"), b, 2.0, frozenset({b}), last)
        carried = CarriedError(engine, {1: [site]})
        assert carried.probed == (() if last else (1,))
        carried.carries = {1: 2 * np.eye(width, dtype=np.float32)}
        found[last] = carried.gradient(batch, theta).gradients[b]
    np.testing.assert_allclose(found[False], 3 * found[True], rtol=1e-4, atol=1e-6)


def test_only_what_trains_has_a_gradient(made):
    engine, theta, bundle = made
    _, batch = batch_of(bundle, "completion")
    b = LAYER.format(1, "B")
    site = CarriedSite(TAP, LAYER.format(1, "A"), b, 2.0, frozenset({b}))
    assert set(CarriedError(engine, {1: [site]}).gradient(batch, theta).gradients) == {b}


def test_a_rehearsal_of_some_blocks_makes_no_gradient(made):
    engine, theta, bundle = made
    _, batch = batch_of(bundle, "completion")
    carried = CarriedError(engine, sites_of(bundle.manifest))
    with engine.sampling(frozenset({0})):
        found = carried.gradient(batch, theta)
    assert not any(value.any() for value in found.gradients.values())
    assert not carried.carries


def test_last_tokens_are_refused(made):
    engine, theta, bundle = made
    examples, batch = batch_of(bundle, "labels")
    manifest = bundle.manifest
    layout = KeyValueLayout.of(manifest.graphs, 0)
    width = manifest.model.hidden_size
    cache = AnswerCache(None, examples.sequence_lengths(), width, layout)
    with pytest.raises(UsageError, match="over whole sequences"):
        CarriedError(engine, sites_of(manifest)).gradient(batch, theta, "answer", cache)
    cache.close()


def test_derivatives_that_are_not_finite_are_refused():
    with pytest.raises(DivergedError, match="block 3"):
        carried_error._solve({"3.in-in": np.full((2, 2), np.nan), "3.in-out": np.eye(2)}, 3)
