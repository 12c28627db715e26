"""Experts as symbolic operators: products of tokens with the experts that they are routed to.

transformers stores the matrices of all experts of a layer as one tensor (E, out, in) and hands the
routing to a function that can be exchanged. Gates and activations stay as the model computes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from edgezo_export.errors import UnsupportedModelError

EXPERTS = "edgezo_trace"
"""The name under which transformers knows the symbolic experts."""

Symbolic = Callable[..., torch.Tensor]
"""Makes a symbolic operator: name, inputs, attributes, shape, dtype."""


@contextlib.contextmanager
def expert_symbols(symbolic: Symbolic) -> Iterator[None]:
    """Register the symbolic experts with transformers while tracing."""

    def product(self: Any, x: torch.Tensor, index: torch.Tensor, name: str) -> torch.Tensor:
        weight = getattr(self, name)
        in_out = bool(self.is_transposed)
        shape = (*index.shape, weight.shape[2 if in_out else 1])
        y = symbolic("ExpertLinear", [x, index, weight], {"in_out": int(in_out)}, shape, x.dtype)
        return y + getattr(self, f"{name}_bias")[index] if self.has_bias else y

    def experts(
        self: Any,
        hidden_states: torch.Tensor,
        top_k_index: torch.Tensor,
        top_k_weights: torch.Tensor,
    ) -> torch.Tensor:
        """(T, H), (T, k), (T, k) -> (T, H)."""
        if self.has_post_expert_norm:
            raise UnsupportedModelError("experts with a norm after each of them")
        up = product(
            self, hidden_states, top_k_index, "gate_up_proj" if self.has_gate else "up_proj"
        )
        gated = self._apply_gate(up) if self.has_gate else self.act_fn(up)
        down = product(self, gated, top_k_index, "down_proj")
        return (down * top_k_weights.unsqueeze(-1)).sum(1)

    ALL_EXPERTS_FUNCTIONS.register(EXPERTS, experts)
    try:
        yield
    finally:
        type(ALL_EXPERTS_FUNCTIONS)._global_mapping.pop(EXPERTS, None)
