"""Groups that differ from blocks of their own on: the same bits as passes of their own."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.forward import Forward
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators import Probe, StepInfo, block_wise, record_losses
from tests.runtime.dense_directions import dense_params, trained_blocks
from tests.runtime.engine.test_answer_scope import make_cache
from tests.runtime.engine.test_engine import batch_of, tiny
from tests.runtime.tiny_sets import random_set

SIZES = (2, 5, 9, 21, 1, 13)
EPS = 0.05
BUNDLES = [("llama", "fp32"), ("llama", "int8"), ("gpt2", "fp32")]
BLOCKS = (0, 1)


def pair(block: int) -> list[Probe]:
    """Of one block."""
    return [Probe(block, EPS, blocks=(block,)), Probe(block, -EPS, blocks=(block,))]


CENTRE = Probe(9, 0.0, blocks=())


def scores(engine, theta, active, batch, probes, first, **options):
    params = dense_params(theta, active, probes, batch.row_example)
    code = code_matrices([probe.scale for probe in probes])
    return engine.score(batch, params, code, first_active=first, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["labels", "candidates", "completion"])
@pytest.mark.parametrize(("name", "quant"), BUNDLES)
def test_one_pass_has_the_bits_of_a_pass_a_block(exported, name, quant, kind):
    """Differences from the centre are coded one by one, so int8 gives the same bits too."""
    bundle, theta = tiny(exported, name, quant)
    engine, active, batch = (
        Engine(bundle, chunk_tokens=40),
        trained_blocks(bundle),
        batch_of(bundle, kind),
    )
    probes = [CENTRE, *pair(0), *pair(1)]
    found = scores(engine, theta, active, batch, probes, (0, 0, 0, 1, 1))
    flat = scores(engine, theta, active, batch, probes, 0)
    np.testing.assert_array_equal(found, flat)
    for block in BLOCKS:
        own = scores(engine, theta, active, batch, [CENTRE, *pair(block)], block)
        np.testing.assert_array_equal(found[0], own[0])
        np.testing.assert_array_equal(found[1 + 2 * block : 3 + 2 * block], own[1:])
        assert (own[1] != own[2]).any()


@pytest.mark.parametrize(("name", "quant"), [("llama", "fp32"), ("llama", "int8"), ("llama", "w4")])
def test_on_kept_prompts_too(exported, tmp_path, name, quant):
    """Last tokens alone, from block 0 on."""
    bundle, theta = tiny(exported, name, quant)
    engine, active = Engine(bundle), trained_blocks(bundle)
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    batch = batch_of(bundle, sizes=SIZES)
    options = {"cache": make_cache(engine, examples, tmp_path, 0), "cache_block": 0}
    probes = [CENTRE, *pair(0), *pair(1)]
    found = scores(engine, theta, active, batch, probes, (0, 0, 0, 1, 1), **options)
    for block in BLOCKS:
        own = scores(engine, theta, active, batch, [CENTRE, *pair(block)], block, **options)
        np.testing.assert_array_equal(found[0], own[0])
        np.testing.assert_array_equal(found[1 + 2 * block : 3 + 2 * block], own[1:])


def test_streamed_blocks_and_threads_change_no_bit(exported):
    bundle, theta = tiny(exported, "llama", "int8")
    active, batch = trained_blocks(bundle), batch_of(bundle)
    probes = [CENTRE, *pair(0), *pair(1)]
    plain, streamed = Engine(bundle), Engine(bundle, chunk_tokens=16)
    streamed.streamed = frozenset({0, 1})
    found = [
        scores(engine, theta, active, batch, probes, (0, 0, 0, 1, 1))
        for engine in (plain, streamed)
    ]
    np.testing.assert_array_equal(*found)


def test_groups_are_not_run_before_their_block(exported, monkeypatch):
    """Three in block 0, five in block 1."""
    bundle, theta = tiny(exported, "llama", "fp32")
    engine, active, batch = (
        Engine(bundle, chunk_tokens=10_000),
        trained_blocks(bundle),
        batch_of(bundle),
    )
    rows, original = [], Forward._trainables

    def watched(self, index, chunk, params):
        rows.append((index, chunk.groups))
        return original(self, index, chunk, params)

    monkeypatch.setattr(Forward, "_trainables", watched)
    scores(engine, theta, active, batch, [CENTRE, *pair(0), *pair(1)], (0, 0, 0, 1, 1))
    assert set(rows) == {(0, 3), (1, 5)}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_private_probes_of_one_block_each(exported, quant, private):
    """G R copies are cut to those of the groups that run."""
    bundle, theta = tiny(exported, "llama", quant)
    engine, active, batch = Engine(bundle), trained_blocks(bundle), batch_of(bundle)
    probes = [
        Probe(9, 0.0, private, blocks=()),
        Probe(0, EPS, private, blocks=(0,)),
        Probe(1, EPS, private, blocks=(1,)),
    ]
    found = scores(engine, theta, active, batch, probes, (0, 0, 1))
    np.testing.assert_array_equal(found, scores(engine, theta, active, batch, probes, 0))


@pytest.mark.parametrize(
    "first",
    [(0, 1), (0, 0, 0, 1, 0), (1, 0, 0, 0, 0)],
)
def test_starts_that_are_none_are_refused(exported, first):
    bundle, theta = tiny(exported, "llama", "fp32")
    probes = [CENTRE, *pair(0), *pair(1)]
    with pytest.raises(UsageError, match="expected 5 blocks, one per group, ascending"):
        scores(Engine(bundle), theta, trained_blocks(bundle), batch_of(bundle), probes, first)


def test_a_code_whose_part_is_none_is_refused(exported):
    """Without a centre the first groups of the mean's code cannot be decoded alone."""
    bundle, theta = tiny(exported, "llama", "int8")
    probes = [*pair(0), *pair(1)]
    with pytest.raises(UsageError, match="2 of 4 groups start early, and their part of the code"):
        scores(
            Engine(bundle), theta, trained_blocks(bundle), batch_of(bundle), probes, (0, 0, 1, 1)
        )


@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_block_wise_is_the_slope_of_each_block(exported, quant):
    """Against a pair of each block in a pass without the others."""
    bundle, theta = tiny(exported, "llama", quant)
    engine, active, batch = Engine(bundle), trained_blocks(bundle), batch_of(bundle)
    steps = block_wise(EPS)(StepInfo(5, batch.num_examples, blocks=BLOCKS))
    probes = next(steps)
    losses = example_losses(batch, scores(engine, theta, active, batch, probes, (0, 0, 0, 1, 1)))
    with pytest.raises(StopIteration) as done:
        steps.send(record_losses(losses, probes))
    for block, term in zip(BLOCKS, done.value.value, strict=True):
        own = {name: at for name, at in active.items() if at == block}
        sides = [Probe(term.seed, EPS), Probe(term.seed, -EPS)]
        plus, minus = example_losses(batch, scores(engine, theta, own, batch, sides, block)).mean(
            axis=1
        )
        slope = (plus - minus) / (2 * EPS)
        # losses are recorded in float32; int8 quantizes a pair and its centre otherwise
        bound = 1e-4 if quant == "fp32" else 0.05
        assert term.coeff[0] == pytest.approx(slope, rel=bound, abs=bound / 10)
