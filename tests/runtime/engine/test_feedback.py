"""Passes of learned feedback: against whole prompts, block by block, by the graphs alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.bundle.manifest_types import LAYER_INPUT
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.answer_pass import AnswerPass
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.feedback import FeedbackPasses
from edgezo_runtime.engine.feedback_pass import LocalGradientPass, LocalSite, NodeNoise
from edgezo_runtime.engine.first_order_pass import OrderedSums
from edgezo_runtime.engine.forward import Work
from edgezo_runtime.engine.prefix_cache import AnswerCache
from edgezo_runtime.noise import noise
from tests.runtime.tiny_sets import random_set

SIZES = (4, 7, 2, 9, 9)
BLOCKS = (0, 1)
TAP = f"{LAYER_INPUT}mlp.down_proj"
NAMES = {block: f"model.layers.{block}.mlp.down_proj.lora_B" for block in BLOCKS}
FACTORS = {block: f"model.layers.{block}.mlp.down_proj.lora_A" for block in BLOCKS}
# The cache has keys and values in float16.
TOLERANCE = 5e-3


class Whole:
    """Whole prompts by the graphs of a bundle; adapters act on last tokens."""

    def __init__(self, runner, theta, batch) -> None:
        self.runner, self.theta, self.batch = runner, theta, batch

    def run(self, row: int, shift=lambda block: 0.0):
        """Label logits (C,) of a row, and the inputs of down_proj at its last token."""
        ids = self.batch.input_ids[row : row + 1, : self.batch.lengths[row]]
        hidden, context = self.runner.prologue(ids)
        active = np.zeros(ids.shape, np.float32)
        active[:, -1] = 1
        params = {name: value[None] for name, value in self.theta.items()}
        inputs = {}
        for block in range(len(self.runner.manifest.graphs.blocks)):
            own = context | {"active": active}
            hidden = self.runner.block(block, hidden, own, params, outputs=(TAP,))
            inputs[block] = self.runner.extra[TAP][0, -1]
            hidden[0, -1] += shift(block)
        last = np.array([[0, ids.shape[1] - 1]])
        return self.runner.label_logits(hidden, last, self.batch.label_ids)[0], inputs


@pytest.fixture
def made(exported, tmp_path):
    """(passes, cache, trainables, batch, the same by whole prompts)."""
    runner = exported("llama").bundle("fp32")
    bundle = runner.bundle
    generator = np.random.default_rng(1)
    theta = {
        key: (value + generator.normal(0, 0.1, value.shape)).astype(np.float32)
        for key, value in bundle.trainables().items()
    }
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    batch = make_batch(examples, range(len(SIZES)))
    layout = KeyValueLayout.of(bundle.manifest.graphs, 0)
    width = bundle.manifest.model.hidden_size
    cache = AnswerCache(tmp_path / "cache", examples.sequence_lengths(), width, layout)
    engine = Engine(bundle)
    yield FeedbackPasses(engine, 0), cache, theta, batch, Whole(runner, theta, batch)
    cache.close()
    engine.close()


def test_probes_shift_last_tokens_behind_blocks(made):
    """Every row by signs of its own; the two groups in opposite directions."""
    passes, cache, theta, batch, whole = made
    width = whole.runner.manifest.model.hidden_size
    nodes = NodeNoise(3, (0.2, -0.2), NAMES, dict.fromkeys(NAMES, (TAP,)), width)
    found, kept = passes.probe(batch, theta, nodes, cache)
    assert found.shape == (2, len(SIZES), len(batch.label_ids))
    for group, scale in enumerate(nodes.scales):
        for row in range(len(SIZES)):

            def shift(block: int, row: int = row, scale: float = scale):
                return scale * noise(3, NAMES[block], (width,), kind="rademacher", row=row)

            expected, inputs = whole.run(row, shift)
            for block in BLOCKS if group == 0 else ():
                own = kept[block, TAP][row]
                np.testing.assert_allclose(own, inputs[block], atol=TOLERANCE)
            np.testing.assert_allclose(found[group, row], expected, atol=TOLERANCE)
    assert np.abs(found[0] - found[1]).max() > 100 * TOLERANCE


def test_only_the_named_blocks_are_shifted(made):
    passes, cache, theta, batch, whole = made
    width = whole.runner.manifest.model.hidden_size
    nodes = NodeNoise(3, (0.2, -0.2), {1: NAMES[1]}, {}, width)
    found, _ = passes.probe(batch, theta, nodes, cache)
    shift = 0.2 * noise(3, NAMES[1], (width,), kind="rademacher", row=2)
    expected, _ = whole.run(2, lambda block: shift if block == 1 else 0.0)
    np.testing.assert_allclose(found[0, 2], expected, atol=TOLERANCE)


def directions(classes: int, block: int):
    return np.random.default_rng([5, block]).normal(0, 1, (classes, 2)).astype(np.float32)


def test_the_gradient_is_error_times_input(made):
    passes, cache, theta, batch, whole = made
    classes = len(batch.label_ids)
    sites = {
        block: [LocalSite(TAP, FACTORS[block], directions(classes, block))] for block in BLOCKS
    }
    found = passes.gradient(batch, theta, sites, cache)
    expected = {name: 0.0 for name in FACTORS.values()}
    losses = []
    for row in range(len(SIZES)):
        logits, inputs = whole.run(row)
        share = np.exp(logits.astype(np.float64) - logits.max())
        share /= share.sum()
        label = int(batch.labels[row])
        losses.append(-np.log(share[label]))
        share[label] -= 1
        for block, name in FACTORS.items():
            signal = directions(classes, block).T.astype(np.float64) @ share
            expected[name] = expected[name] + np.outer(signal, inputs[block]) / len(SIZES)
    np.testing.assert_allclose(found.losses, losses, atol=TOLERANCE)
    for name in FACTORS.values():
        assert found.gradients[name].dtype == np.float32
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found.gradients[name], expected[name], atol=TOLERANCE * scale)


def test_expected_mistakes_fall_along_their_gradient(made):
    """Error times input, as of losses, the error weighted by the chance of the right answer."""
    passes, cache, theta, batch, _ = made
    signal = directions(len(batch.label_ids), 1)
    sites = {1: [LocalSite(TAP, FACTORS[1], signal)]}
    plain = passes.gradient(batch, theta, sites, cache)
    weighted = FeedbackPasses(passes._engine, 0, mistakes=True)
    found = weighted.gradient(batch, theta, sites, cache)
    np.testing.assert_allclose(found.losses, 1 - np.exp(-plain.losses), rtol=1e-6)
    assert not np.allclose(found.gradients[FACTORS[1]], plain.gradients[FACTORS[1]])


def test_the_gradient_has_the_same_bits_in_smaller_chunks(made):
    passes, cache, theta, batch, _ = made
    classes = len(batch.label_ids)
    sites = {1: [LocalSite(TAP, FACTORS[1], directions(classes, 1))]}
    first = passes.gradient(batch, theta, sites, cache)
    passes._engine.shrink("nothing")
    again = passes.gradient(batch, theta, sites, cache)
    np.testing.assert_array_equal(again.gradients[FACTORS[1]], first.gradients[FACTORS[1]])


def test_a_wave_counts_the_inputs_that_are_kept(made):
    passes, cache, theta, batch, _ = made
    engine = passes._engine
    work = Work(engine.model, batch, SharedParams(theta), lambda: None, 256)
    signal = directions(len(batch.label_ids), 1)
    sites = {block: [LocalSite(TAP, FACTORS[block], signal)] for block in BLOCKS}
    own = (work, None, 0, cache, 0)
    chunk = cache.cut(engine.cutter(), batch, 1)[0]
    plain = AnswerPass(*own).wave_bytes(chunk)
    kept = LocalGradientPass(*own, sites=sites, sums=OrderedSums()).wave_bytes(chunk)
    width = theta[FACTORS[0]].shape[1]
    assert kept - plain == 2 * 4 * width


def test_a_rehearsal_keeps_as_much_in_blocks_that_are_skipped(made):
    passes, cache, theta, batch, _ = made
    signal = directions(len(batch.label_ids), 1)
    sites = {block: [LocalSite(TAP, FACTORS[block], signal)] for block in BLOCKS}
    with passes._engine.sampling(frozenset({0})):
        found = passes.gradient(batch, theta, sites, cache)
    skipped = found.gradients[FACTORS[1]]
    assert skipped.shape == (signal.shape[1], theta[FACTORS[1]].shape[1])
    np.testing.assert_array_equal(skipped, skipped[:, :1] + np.zeros_like(skipped))  # of ones
    assert skipped.any()
