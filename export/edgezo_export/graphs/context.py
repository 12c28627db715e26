"""Tensors that the prologue computes for the blocks, once per batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

ROTARY_CACHE = ".rotary_cache"
"""Ending of the names of rotary tables in the form (S, D/2)."""


@dataclass(slots=True)
class Context:
    """The tensors that blocks request from the prologue: name -> traced value."""

    needed: dict[str, ir.Value] = field(default_factory=dict)

    def tensor(self, value: ir.Value) -> str:
        """Request a traced value."""
        self.needed[str(value.name)] = value
        return str(value.name)

    def rotary_cache(self, value: ir.Value) -> str:
        """Request the (S, D/2) half of a rotary table."""
        name = f"{value.name}{ROTARY_CACHE}"
        self.needed[name] = value
        return name


def dynamic_shape(value: ir.Value) -> tuple[int | str, ...]:
    """Return a traced shape with its two symbols renamed `rows` and `tokens`."""
    dims: list[int | str] = []
    for axis, dim in enumerate(value.shape or ()):
        dims.append(dim if isinstance(dim, int) else ("rows" if axis == 0 else "tokens"))
    return tuple(dims)
