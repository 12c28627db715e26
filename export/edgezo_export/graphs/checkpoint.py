"""The parameters that a trace refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

_PREFIX = "model."
"""The tracing wrapper puts this before every parameter name."""


@dataclass(slots=True)
class Checkpoint:
    """Names and values of the parameters that a trace refers to.

    Attributes:
        tied: parameter name -> the name it shares its values with.
        buffers: values of non-parameter tensors.
        vocab_size: rows of the embedding.
    """

    tied: Mapping[str, str]
    buffers: Mapping[str, torch.Tensor]
    vocab_size: int

    def name(self, value: ir.Value) -> str:
        """Return the checkpoint's name of a traced initializer; tied parameters share one."""
        name = str(value.name).removeprefix(_PREFIX)
        return self.tied.get(name, name)
