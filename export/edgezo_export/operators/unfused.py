"""The expansion of every fused operator into standard operators, which have a derivative.

Forward graphs use ONNX Runtime's fused operators. Backward graphs recompute the same numbers from
these expansions and differentiate them (`edgezo_export.derivatives.pull_back`).
"""

from __future__ import annotations

from edgezo_export.graph_builder import Expansion
from edgezo_export.operators.activation import unfused_gelu, unfused_quick_gelu
from edgezo_export.operators.gpu_attention import gpu_group_query
from edgezo_export.operators.group_query import unfused_group_query
from edgezo_export.operators.multi_head import unfused_multi_head
from edgezo_export.operators.norm import unfused_layer_norm, unfused_rms_norm

UNFUSED: dict[str, Expansion] = {
    "Gelu": unfused_gelu,
    "GroupQueryAttention": unfused_group_query,
    "LayerNormalization": unfused_layer_norm,
    "MultiHeadAttention": unfused_multi_head,
    "QuickGelu": unfused_quick_gelu,
    "SimplifiedLayerNormalization": unfused_rms_norm,
}
"""Fused operator -> its expansion."""

FOR_GPUS: dict[str, Expansion] = {
    "GroupQueryAttention": gpu_group_query,
    "MultiHeadAttention": unfused_multi_head,
}
"""Fused operators that providers of GPUs lack, or have with faults -> their expansions."""

UNFUSED_FOR_GPUS: dict[str, Expansion] = {**UNFUSED, **FOR_GPUS}
"""Fused operator -> its expansion into operators that have a derivative and run on GPUs."""
