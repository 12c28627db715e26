"""The token embedding: float32, float16, uint8 with one scale per token, or kept codes."""

from __future__ import annotations

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.kept_weights import kept_rows
from edgezo_export.operators.layers import Quant
from edgezo_export.quantization.quantize import ZERO_POINT
from edgezo_export.quantization.weights_plan import PlannedTensor, plan_embedding
from edgezo_export.sources.stored_codes import CodeForm

TableForm = Quant | CodeForm
"""How an embedding or a head is stored."""


def embedding_tensors(
    name: str, shape: tuple[int, int], quant: Quant
) -> tuple[PlannedTensor, PlannedTensor | None]:
    """Plan the embedding as the bundle stores it, and its scales."""
    if quant == "fp32":
        return PlannedTensor(name, "F32", shape, (name,), "plain", False), None
    if quant == "fp16":
        return PlannedTensor(name, "F16", shape, (name,), "plain_half", False), None
    return plan_embedding(name, f"{name.removesuffix('.weight')}.scale", name, shape)


def embedding_rows(
    draft: GraphBuilder, name: str, shape: tuple[int, int], quant: TableForm, ids: ir.Value
) -> ir.Value:
    """Append the rows `ids` of the embedding as float32, ids.shape + (H,)."""
    if isinstance(quant, CodeForm):
        return kept_rows(draft, name, quant, shape, ids)
    table, scale = embedding_tensors(name, shape, quant)
    rows = draft.op("Gather", draft.weight(table), ids, axis=0)
    if scale is None:
        return draft.op("Cast", rows, to=int(ir.DataType.FLOAT)) if quant == "fp16" else rows
    centred = draft.op(
        "Sub", draft.op("Cast", rows, to=int(ir.DataType.FLOAT)), draft.scalar(float(ZERO_POINT))
    )
    return draft.op("Mul", centred, draft.op("Gather", draft.weight(scale), ids, axis=0))
