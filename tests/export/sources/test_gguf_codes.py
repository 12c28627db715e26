"""Codes of GGUF blocks against the gguf package's dequantization."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from edgezo_export.sources.gguf_codes import BLOCKS, coded_rows
from tests.export.quantized_models import random_blocks


@pytest.mark.parametrize("name", BLOCKS)
def test_codes_mean_what_the_package_computes(name):
    kind = gguf.GGMLQuantizationType[name]
    blocks = random_blocks(kind, (5, 512), np.random.default_rng(0))
    expected = gguf.quants.dequantize(blocks, kind)
    rows, form = coded_rows(blocks, name), BLOCKS[name].form
    assert rows.codes.shape == (5, 512)
    assert rows.codes.max() < 1 << form.bits
    groups = 512 // form.size
    coarse = groups // form.factors if form.factors else groups
    assert rows.scale.shape == (5, coarse)
    assert (rows.factor is not None) is bool(form.factors)
    assert (rows.minimum is not None) is form.minimum
    # A minimum is added to codes around 0 here: a rounding of float32 more.
    tolerance = 1e-6 if form.minimum else 0
    np.testing.assert_allclose(rows.values(form), expected, rtol=tolerance, atol=tolerance / 10)
    some = rows.taken(np.array([3, 1]))
    np.testing.assert_array_equal(some.values(form), rows.values(form)[[3, 1]])


def test_a_block_by_hand():
    """Q4_1: w = d q + m; the low half of byte j is code j, its high half code j + 16."""
    block = np.zeros(20, np.uint8)
    block[:4] = np.array([0.5, -1.0], "<f2").view(np.uint8)
    block[4], block[5] = 0x31, 0xF0
    values = coded_rows(block[None], "Q4_1").values(BLOCKS["Q4_1"].form)[0]
    assert values[0] == 0.5 * 1 - 1
    assert values[16] == 0.5 * 3 - 1
    assert values[17] == 0.5 * 15 - 1
    assert values[2] == -1
