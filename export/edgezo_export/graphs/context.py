"""Tensors that the prologue computes for the blocks, once per batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

ROTARY_CACHE = ".rotary_cache"
"""Ending of the names of rotary tables in the form (S, D/2)."""

HALF_CACHE = f".half{ROTARY_CACHE}"
"""The same where the model makes only that half."""


@dataclass(slots=True)
class Context:
    """The tensors that blocks request from the prologue: name -> traced value.

    They are named by the order of the requests. The names of a trace follow the order in which
    transformers makes the tensors, which is that of a set and differs between processes.
    """

    needed: dict[str, ir.Value] = field(default_factory=dict)

    def tensor(self, value: ir.Value) -> str:
        """Request a traced value."""
        return self._request(value, "")

    def rotary_cache(self, value: ir.Value, half: bool = False) -> str:
        """Request the (S, D/2) form of a rotary table, or of one `half` of it."""
        return self._request(value, HALF_CACHE if half else ROTARY_CACHE)

    def _request(self, value: ir.Value, ending: str) -> str:
        for name, known in self.needed.items():
            if known is value and name.endswith(ROTARY_CACHE) is bool(ending):
                return name
        name = f"context_{len(self.needed)}{ending}"
        self.needed[name] = value
        return name


def dynamic_shape(value: ir.Value) -> tuple[int | str, ...]:
    """Return a traced shape with its two symbols renamed `rows` and `tokens`."""
    node = value.producer()
    inputs = () if node is None or node.graph is None else tuple(node.graph.inputs)
    ids = inputs[0].shape if inputs else None
    tokens = None if ids is None or len(ids) < 2 else ids[1]
    dims: list[int | str] = []
    for axis, dim in enumerate(value.shape or ()):
        first = axis == 0 and (tokens is None or dim != tokens)
        dims.append(dim if isinstance(dim, int) else ("rows" if first else "tokens"))
    return tuple(dims)
