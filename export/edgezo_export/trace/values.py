"""Read the values of a trace."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError

_CONSTANTS = (
    ("value_ints", np.int64),
    ("value_int", np.int64),
    ("value_floats", np.float32),
    ("value_float", np.float32),
)


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the number that a Constant node holds; None for any other value."""
    if value is None:
        return None
    producer = value.producer()
    if producer is None or producer.op_type != "Constant":
        return None
    tensor = producer.attributes.get("value")
    if tensor is not None:
        return np.asarray(tensor.value.numpy())
    for name, dtype in _CONSTANTS:
        attribute = producer.attributes.get(name)
        if attribute is not None:
            return np.asarray(attribute.value, dtype)
    return None


_T = TypeVar("_T")


def present(value: _T | None) -> _T:
    """Return an input or a maker of a node that must not be left out.

    Raises:
        UnsupportedModelError: it is left out.
    """
    if value is None:
        raise UnsupportedModelError("a node without one of its inputs")
    return value


def fixed_shape(value: ir.Value) -> tuple[int, ...]:
    """Return the shape of a parameter, all of whose dimensions are numbers."""
    return tuple(int(dim) for dim in value.shape or ())  # type: ignore[arg-type]
