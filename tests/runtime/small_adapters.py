"""Adapters in memory, with random tensors, for tests of what becomes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.adapter_info import AdapterInfo
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.data.scope import Scope

Shapes = dict[str, tuple[int, ...]]

LORA = SchemeInfo("lora", ("q_proj", "up_proj"), 2, 8.0, "b")
"""Scaled by 4."""

LORA_SHAPES: Shapes = {
    "model.layers.0.self_attn.q_proj.lora_A": (2, 8),
    "model.layers.0.self_attn.q_proj.lora_B": (6, 2),
    "model.layers.1.mlp.up_proj.lora_A": (2, 5),
    "model.layers.1.mlp.up_proj.lora_B": (3, 2),
}


def small_adapter(
    scheme: SchemeInfo,
    shapes: Shapes,
    *,
    architecture: str = "llama",
    scope: Scope = "all",
    complete: bool = True,
    invocation: tuple[int, ...] = (),
) -> Adapter:
    """An adapter of a causal model, with tensors of these shapes."""
    generator = np.random.default_rng(0)
    info = AdapterInfo(
        version=2,
        created_by="test",
        model="org/m",
        architecture=architecture,
        task="causal-lm",
        bundle_sha256="",
        scheme=scheme,
        complete=complete,
        steps=1,
        scope=scope,
        invocation=invocation,
    )
    tensors = {
        name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
    }
    return Adapter(info, tensors, Path("a.safetensors"))
