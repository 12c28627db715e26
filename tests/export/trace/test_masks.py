"""Mask functions as transformers makes them."""

from __future__ import annotations

import pytest
import torch
from transformers import masking_utils

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.trace.masks import Visibility, read_mask

LONG = 100


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (masking_utils.causal_mask_function, Visibility(True, 0)),
        (masking_utils.bidirectional_mask_function, Visibility(False, 0)),
        (masking_utils.sliding_window_causal_mask_function(8), Visibility(True, 8)),
        (masking_utils.sliding_window_causal_mask_function(1), Visibility(True, 1)),
        (masking_utils.sliding_window_causal_mask_function(LONG - 1), Visibility(True, LONG - 1)),
        # wider than any text
        (masking_utils.sliding_window_causal_mask_function(LONG), Visibility(True, 0)),
        # bidirectional windows include the distance itself
        (masking_utils.sliding_window_bidirectional_mask_function(8), Visibility(False, 9)),
    ],
)
def test_recognised(function, expected):
    assert read_mask(function, LONG) == expected


@pytest.mark.parametrize(
    "function",
    [
        masking_utils.chunked_causal_mask_function(16, torch.zeros(1, dtype=torch.int64)),
        lambda b, h, q, k: (k <= q) | (k < 5),  # a prefix
        lambda b, h, q, k: k < q,  # nothing for the first token
        lambda b, h, q, k: k >= q,
        lambda b, h, q, k: (k <= q) & (q % 2 == 0),
        lambda b, h, q, k: torch.zeros(3),
    ],
    ids=["chunks", "prefix", "strict", "reversed", "striped", "shape"],
)
def test_refused(function):
    with pytest.raises(UnsupportedModelError, match="attention mask"):
        read_mask(function, LONG)
