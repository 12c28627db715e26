"""Experts in coded int8: the groups of a pass share what is routed, and chunks change no bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.methods.estimators import Probe
from tests.runtime.dense_directions import dense_params, trained_blocks
from tests.runtime.tiny_sets import random_set
from tests.runtime.written_texts import moved

SIZES = (4, 7, 5, 3, 16, 4, 8, 5)
EPS = 0.03


def losses(bundle, **options) -> np.ndarray:
    """(2, E): of both points of a pair."""
    theta = moved(bundle)
    probes = [Probe(3, EPS, False), Probe(3, -EPS, False)]
    batch = make_batch(
        random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id), range(len(SIZES))
    )
    params = dense_params(theta, trained_blocks(bundle), probes, batch.row_example)
    engine = Engine(bundle, **options)
    return example_losses(batch, engine.score(batch, params, code_matrices([EPS, -EPS])))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_differences_are_those_of_float32(exported, name):
    case = exported(name)
    exact, found = (losses(case.bundle(quant).bundle) for quant in ("fp32", "int8"))
    assert np.abs(found - exact).max() < 0.3
    assert np.corrcoef(found[0] - found[1], exact[0] - exact[1])[0, 1] > 0.98
    cut = losses(case.bundle("int8").bundle, threads=2, chunk_tokens=16)
    np.testing.assert_array_equal(cut, found)
