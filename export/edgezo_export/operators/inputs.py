"""Inputs and attributes of a fused operator that is expanded into standard operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError

Inputs = Sequence[ir.Value | None]
Attributes = Mapping[str, Any]


def given(inputs: Inputs, index: int) -> ir.Value:
    """Return an input that an operator cannot do without.

    Raises:
        UnsupportedModelError: it is left out.
    """
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise UnsupportedModelError(f"an operator without its input {index}")
    return value
