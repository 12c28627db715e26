"""Linear layers: float32, or int8 weights with coded, row-independent int8 activations.

The rows of a pass are G groups of the same examples. Before quantizing, `code` mixes the groups
(centre and half difference of an antithetic pair) and a rotation spreads outliers; each coded row
gets a scale of its own; after the integer product `decode` separates the groups again. A finite
difference between groups then keeps its full relative precision, and a row's result does not
depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.quantization.quantize import LEVELS, ZERO_POINT
from edgezo_export.quantization.rotation import block_size, hadamard
from edgezo_export.quantization.weights_plan import PlannedTensor, plan_linear

SMALLEST_SCALE = 1e-30
"""Below any activation that matters; keeps a row of zeros (an unperturbed difference) finite."""

Quant = Literal["int8", "fp32"]


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """Frozen linear layers that read the same input, as one matrix.

    Attributes:
        modules: module paths, in output order.
        sizes: outputs of each.
        in_features: size of the shared input.
        in_out: weights are stored (in, out) in the checkpoint.
        biases: checkpoint names of the biases, all or none.
    """

    modules: tuple[str, ...]
    sizes: tuple[int, ...]
    in_features: int
    in_out: bool
    biases: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the fused weight in the bundle, without a suffix."""
        parent, _, first = self.modules[0].rpartition(".")
        names = [first, *(module.rsplit(".", 1)[-1] for module in self.modules[1:])]
        return f"{parent}.{'+'.join(names)}" if parent else "+".join(names)

    @property
    def sources(self) -> tuple[str, ...]:
        """Checkpoint names of the weights."""
        return tuple(f"{module}.weight" for module in self.modules)


class LinearLowering:
    """Appends the frozen part of linear layers to one graph.

    Args:
        draft: the graph.
        quant: form of the weights.
        dequantize: compute with the float32 values of int8 weights and leave the activations
            unquantized; this form has a derivative.
    """

    def __init__(self, draft: GraphBuilder, quant: Quant, *, dequantize: bool = False) -> None:
        self._draft = draft
        self._quant = quant
        self._dequantize = dequantize
        self._code: tuple[ir.Value, ir.Value] | None = None

    def declare_code(self) -> None:
        """Add the inputs `code` and `decode`, (G, G) each.

        The float32 graph does not use them; it keeps the same signature.
        """
        shape = ("groups", "groups")
        self._code = (
            self._draft.input("code", ir.DataType.FLOAT, shape),
            self._draft.input("decode", ir.DataType.FLOAT, shape),
        )

    def groups(self) -> ir.Value:
        """Append (1,) int64: the groups of rows that layers mix; 1 where they do not."""
        if self._quant in ("int8", "w4") and self._code is not None:
            return self._draft.op("Shape", self._code[0], start=0, end=1)
        return self._draft.ints(1)

    def emit(self, spec: LinearSpec, x: ir.Value, leading: ir.Value) -> ir.Value:
        """Append x W for all layers of `spec` side by side.

        Args:
            spec: the layers.
            x: (R, S, in) or (R*S, in).
            leading: int64 vector, the dimensions of x before the last.
        """
        if self._quant == "int8" and self._code is not None:
            return self._coded(spec, x, leading)
        if self._quant == "int8" and self._dequantize:
            return self._dequantized(spec, x, leading)
        shape = (spec.in_features, sum(spec.sizes))
        weight = PlannedTensor(
            f"{spec.name}.weight", "F32", shape, spec.sources, "concat", not spec.in_out
        )
        return self._draft.op("MatMul", x, self._draft.weight(weight))

    def add_bias(
        self, spec: LinearSpec, y: ir.Value, part: tuple[int, int] | None = None
    ) -> ir.Value:
        """Append y + b if the layers have biases.

        Args:
            spec: the layers.
            y: their product.
            part: start and stop of the outputs that y holds; None for all.
        """
        if not spec.biases:
            return y
        total = (sum(spec.sizes),)
        bias = PlannedTensor(f"{spec.name}.bias", "F32", total, spec.biases, "concat", False)
        return self._draft.op("Add", y, self._draft.weight(bias, part))

    def _coded(self, spec: LinearSpec, x: ir.Value, leading: ir.Value) -> ir.Value:
        if self._code is None:
            raise RuntimeError("declare_code() comes first")
        draft = self._draft
        code, decode = self._code
        out_features = sum(spec.sizes)
        by_group = draft.op(
            "Concat", draft.op("Shape", code, start=0, end=1), draft.ints(-1), axis=0
        )
        mixed = draft.op("MatMul", code, draft.op("Reshape", x, by_group))
        rows = draft.op("Reshape", self._rotated(mixed, spec), draft.ints(-1, spec.in_features))
        quantized, scale = self._quantize(rows)
        weight, weight_scale = _planned(spec)
        product = draft.op(
            "MatMulIntegerToFloat",
            quantized,
            draft.weight(weight),
            draft.scalar(1.0),
            draft.weight(weight_scale),
            draft.constant(np.uint8(ZERO_POINT)),
            domain=MICROSOFT,
        )
        scaled = draft.op("Mul", product, scale)
        decoded = draft.op("MatMul", decode, draft.op("Reshape", scaled, by_group))
        shape = draft.op("Concat", leading, draft.ints(out_features), axis=0)
        return draft.op("Reshape", decoded, shape)

    def _dequantized(self, spec: LinearSpec, x: ir.Value, leading: ir.Value) -> ir.Value:
        draft = self._draft
        shape = draft.op("Concat", leading, draft.ints(spec.in_features), axis=0)
        rotated = draft.op("Reshape", self._rotated(x, spec), shape, allowzero=1)
        weight, scale = (draft.weight(planned) for planned in _planned(spec))
        # Scaling the result is cheaper: DequantizeLinear takes longer than the product itself.
        product = draft.op("MatMul", rotated, draft.op("Cast", weight, to=int(ir.DataType.FLOAT)))
        return draft.op("Mul", product, scale)

    def _rotated(self, mixed: ir.Value, spec: LinearSpec) -> ir.Value:
        size = block_size(spec.in_features)
        if size == 1:
            return mixed
        blocks = self._draft.op("Reshape", mixed, self._draft.ints(-1, size))
        return self._draft.op("MatMul", blocks, self._draft.constant(hadamard(size)))

    def _quantize(self, rows: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Append symmetric uint8 around 128, one scale per row: values (T, in), scales (T, 1)."""
        draft = self._draft
        axis = draft.ints(1)
        high = draft.op("ReduceMax", rows, axis, keepdims=1)
        low = draft.op("Neg", draft.op("ReduceMin", rows, axis, keepdims=1))
        largest = draft.op("Max", high, low)
        scale = draft.op(
            "Max",
            draft.op("Mul", largest, draft.scalar(1 / LEVELS)),
            draft.scalar(SMALLEST_SCALE),
        )
        vector = draft.op("Squeeze", scale, axis)
        zero = draft.op("Expand", draft.constant(np.uint8(ZERO_POINT)), draft.op("Shape", vector))
        return draft.op("QuantizeLinear", rows, vector, zero, axis=0), scale


def _planned(spec: LinearSpec) -> tuple[PlannedTensor, PlannedTensor]:
    """Plan the int8 weight of `spec` and its scales."""
    return plan_linear(
        f"{spec.name}.weight",
        f"{spec.name}.scale",
        spec.sources,
        (spec.in_features, sum(spec.sizes)),
        transpose=not spec.in_out,
    )
