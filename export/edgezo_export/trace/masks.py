"""Recognize a mask function of transformers: causal or not, within a window or not.

A model describes its mask by a function (row, head, query, key) -> visible. It is called here on
plain numbers and recognized by its values. No operator computes other masks (chunks, packed
sequences, prefixes); they are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import _disable_current_modes

from edgezo_export.errors import UnsupportedModelError

MaskFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Visibility:
    """Query q sees key k where |q - k| < window (0: everywhere) and, if causal, k <= q."""

    causal: bool
    window: int

    def table(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Booleans for queries (Q, 1) and keys (K,)."""
        seen = torch.ones_like(queries - keys, dtype=torch.bool)
        if self.causal:
            seen &= keys <= queries
        if self.window:
            seen &= (queries - keys).abs() < self.window
        return seen


def read_mask(function: MaskFunction, max_seq: int) -> Visibility:
    """Recognize a mask function by its values on sequences of up to `max_seq` tokens.

    Raises:
        UnsupportedModelError: it is neither causal nor full nor one of these within a window.
    Memory:
        A few booleans per token.
    """
    with _disable_current_modes():
        picked = {0, 1, max_seq // 3, max_seq // 2, max_seq - 2, max_seq - 1}
        queries = torch.tensor(sorted(q for q in picked if 0 <= q < max_seq))[:, None]
        keys = torch.arange(max_seq)
        zero = torch.zeros((), dtype=torch.int64)
        try:
            seen = torch.as_tensor(function(zero, zero, queries, keys))
            seen = seen.expand(len(queries), max_seq).to(torch.bool)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise UnsupportedModelError("an attention mask that depends on the text") from error
        causal = not bool(seen[0, 1:].any()) and max_seq > 1
        visible = seen[-1].nonzero()
        first = int(visible.amin()) if len(visible) else max_seq
        found = Visibility(causal, max_seq - first if first else 0)
        if not torch.equal(found.table(queries, keys), seen):
            raise UnsupportedModelError("an attention mask that is not causal, full or a window")
    return found
