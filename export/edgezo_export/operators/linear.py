"""Linear layers: float32 products, or integer ones with coded, row-independent int8 activations.

The rows of a pass are G groups of the same examples. Before quantizing, `code` mixes the groups
(centre and half difference of an antithetic pair) and a rotation spreads outliers; each coded row
gets a scale of its own; after the integer product `decode` separates the groups again. A finite
difference between groups then keeps its full relative precision, and a row's result does not
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.operators.block_products import block_product, code_blocks, group_blocks
from edgezo_export.operators.frozen_weights import (
    IntegerMatrix,
    float_matrix,
    group_matrix,
    half_matrix,
    int8_matrix,
    unpacked_matrix,
)
from edgezo_export.operators.kept_weights import kept_product
from edgezo_export.operators.layers import LinearSpec, Quant
from edgezo_export.operators.tiles import Tile, joined, tiles_of
from edgezo_export.quantization.group_codes import group_size_of
from edgezo_export.quantization.quantize import LEVELS, ZERO_POINT
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_export.sources.stored_codes import CodeForm, StoredForm

__all__ = ["SMALLEST_SCALE", "LinearLowering", "LinearSpec", "Quant", "Taps"]

SMALLEST_SCALE = 1e-30
"""Below any activation that matters; keeps a row of zeros (an unperturbed difference) finite."""

Taps = list[tuple[LinearSpec, ir.Value]]
"""Linear layers and their inputs."""

FormOf = Callable[[str], StoredForm]
"""Returns how the checkpoint stores a parameter."""


class LinearLowering:
    """Appends the frozen part of linear layers to one graph.

    Args:
        draft: the graph.
        quant: form of the weights.
        group_size: inputs of a group of w4 and w8; the largest smaller one that divides the inputs
            is taken, and int8 or float32 where none does.
        dequantize: compute with the float32 values of integer weights and leave the activations
            unquantized; this form has a derivative.
        taps: collects what layers read.
        form_of: tells the forms of weights that are kept.
    """

    def __init__(
        self,
        draft: GraphBuilder,
        quant: Quant,
        *,
        group_size: int = 32,
        dequantize: bool = False,
        taps: Taps | None = None,
        form_of: FormOf | None = None,
    ) -> None:
        self._draft = draft
        self._quant = quant
        self._group_size = group_size
        self._dequantize = dequantize
        self._taps = taps
        self._form_of = form_of
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

    def emit(
        self, spec: LinearSpec, x: ir.Value, leading: ir.Value, used: ir.Value | None = None
    ) -> ir.Value:
        """Append x W for all layers of `spec` side by side.

        Args:
            spec: the layers.
            x: (R, S, in) or (R*S, in).
            leading: int64 vector, the dimensions of x before the last.
            used: (1,) int64, 0 where x has no rows: no weights are read then; else 1. Not in the
                form that has a derivative: ONNX Runtime refuses products over no outputs.
        """
        if self._dequantize:
            used = None
        if self._taps is not None:
            self._taps.append((spec, x))
        if self._draft.gpu:
            return self._for_gpus(spec, x, leading)
        form = self.form(spec)
        if isinstance(form, CodeForm):
            return kept_product(self._draft, spec, form, x, leading, used)
        integers = self._integers(spec)
        if integers is None:
            return self._multiplied(spec, x, leading, used)
        if self._dequantize:
            return self._dequantized(spec, integers, x, leading)
        return self._coded(spec, integers, x, leading, used)

    def form(self, spec: LinearSpec) -> StoredForm | None:
        """Return how the checkpoint stores the first layer of `spec`; None if that is not kept.

        Raises:
            UnsupportedModelError: it has codes, and is stored (in, out).
        """
        if self._quant != "keep" or self._form_of is None:
            return None
        form = self._form_of(spec.sources[0])
        if isinstance(form, CodeForm) and spec.in_out:
            raise UnsupportedModelError(
                f"layer {spec.modules[0]!r} is stored as (inputs, outputs), and codes of such "
                f"layers cannot be kept; export with another `quant`"
            )
        return form

    def _for_gpus(self, spec: LinearSpec, x: ir.Value, leading: ir.Value) -> ir.Value:
        """Append a product with the weights as they are stored, activations in float32.

        Raises:
            UnsupportedModelError: providers of GPUs do not multiply weights of this form.
        """
        if self._quant == "fp32":
            return self._draft.op("MatMul", x, float_matrix(self._draft, spec))
        size = self._group(spec)
        if self._quant not in ("w4", "w8") or size is None:
            raise UnsupportedModelError(
                f"weights in {self._quant} with {spec.in_features} inputs are multiplied in a way "
                f"that providers of GPUs do not have"
            )
        if self._quant == "w8":
            return block_product(self._draft, x, group_blocks(self._draft, spec, size))
        shape = self._draft.op("Concat", leading, self._draft.ints(spec.in_features), axis=0)
        matrix = code_blocks(self._draft, spec, size)
        rotated = self._rotated(x, matrix.rotation)
        return block_product(self._draft, self._draft.op("Reshape", rotated, shape), matrix)

    def _integers(self, spec: LinearSpec) -> IntegerMatrix | None:
        """Append the weights as integers, if they are multiplied as such."""
        if self._quant not in ("int8", "w4"):
            return None
        size = self._group(spec)
        if size is None or self._quant == "int8":
            return int8_matrix(self._draft, spec)
        return unpacked_matrix(self._draft, spec, size)

    def _multiplied(
        self, spec: LinearSpec, x: ir.Value, leading: ir.Value, used: ir.Value | None
    ) -> ir.Value:
        """Append the product with float32 weights, or with others made float32 tile by tile."""
        draft, size = self._draft, self._group(spec)
        grouped = size if self._quant == "w8" else None
        half = self._quant == "fp16" or self.form(spec) == "F16"
        if not half and grouped is None:
            return draft.op("MatMul", x, float_matrix(draft, spec))
        parts = []
        for tile in tiles_of(spec.in_features, spec.out_features, used, least=int(bool(grouped))):
            if grouped is None:
                weight = half_matrix(draft, spec, tile)
            else:
                weight = group_matrix(draft, spec, grouped, tile)
            parts.append(draft.op("MatMul", x, weight))
        return self._of_used(spec, joined(draft, parts), leading, used)

    def _of_used(
        self, spec: LinearSpec, y: ir.Value, leading: ir.Value, used: ir.Value | None
    ) -> ir.Value:
        """Append y with all outputs, where unused weights have made a product without any."""
        if used is None:
            return y
        shape = self._draft.op("Concat", leading, self._draft.ints(spec.out_features), axis=0)
        return self._draft.op("Reshape", y, shape, allowzero=1)

    def _group(self, spec: LinearSpec) -> int | None:
        return group_size_of(spec.in_features, self._group_size)

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
        total = (spec.out_features,)
        bias = PlannedTensor(f"{spec.name}.bias", "F32", total, spec.biases, "concat", False)
        return self._draft.op("Add", y, self._draft.weight(bias, part))

    def _coded(
        self,
        spec: LinearSpec,
        matrix: IntegerMatrix,
        x: ir.Value,
        leading: ir.Value,
        used: ir.Value | None,
    ) -> ir.Value:
        if self._code is None:
            raise RuntimeError("declare_code() comes first")
        draft = self._draft
        code, decode = self._code
        groups = draft.op("Shape", code, start=0, end=1)
        by_group = draft.op("Concat", groups, draft.ints(-1), axis=0)
        mixed = draft.op("MatMul", code, draft.op("Reshape", x, by_group))
        rows = draft.op(
            "Reshape", self._rotated(mixed, matrix.rotation), draft.ints(-1, spec.in_features)
        )
        quantized, scale = self._quantize(rows)
        tiles = self._tiles(spec, used)
        if self._quant == "int8" or self._group(spec) is None:  # multiplied as they are stored
            tiles = [Tile(0, spec.out_features, whole=True)]
        parts = [
            draft.op(
                "MatMulIntegerToFloat",
                quantized,
                matrix.tile(tile),
                draft.scalar(1.0),
                tile.of(draft, matrix.scale, axis=0),
                draft.constant(np.uint8(ZERO_POINT)),
                domain=MICROSOFT,
            )
            for tile in tiles
        ]
        product = joined(draft, parts)
        if used is not None:
            flat = draft.op("Shape", quantized, start=0, end=1)
            product = self._of_used(spec, product, flat, used)
        scaled = draft.op("Mul", product, scale)
        decoded = draft.op("MatMul", decode, draft.op("Reshape", scaled, by_group))
        shape = draft.op("Concat", leading, draft.ints(spec.out_features), axis=0)
        return draft.op("Reshape", decoded, shape)

    def _tiles(self, spec: LinearSpec, used: ir.Value | None) -> list[Tile]:
        """The tiles of a matrix of integers."""
        codes = self._quant == "w4" and self._group(spec) is not None
        return tiles_of(spec.in_features, spec.out_features, used, least=int(codes))

    def _dequantized(
        self,
        spec: LinearSpec,
        matrix: IntegerMatrix,
        x: ir.Value,
        leading: ir.Value,
    ) -> ir.Value:
        draft = self._draft
        shape = draft.op("Concat", leading, draft.ints(spec.in_features), axis=0)
        rotated = draft.op("Reshape", self._rotated(x, matrix.rotation), shape, allowzero=1)
        parts = []
        for tile in self._tiles(spec, None):
            weight = draft.op("Cast", matrix.tile(tile), to=int(ir.DataType.FLOAT))
            parts.append(draft.op("MatMul", rotated, weight))
        # Scaling the result is cheaper: DequantizeLinear takes longer than the product itself.
        return draft.op("Mul", joined(draft, parts), matrix.scale)

    def _rotated(self, mixed: ir.Value, rotation: npt.NDArray[np.float32] | None) -> ir.Value:
        if rotation is None:
            return mixed
        draft = self._draft
        blocks = draft.op("Reshape", mixed, draft.ints(-1, len(rotation)))
        return draft.op("MatMul", blocks, draft.constant(rotation))

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
