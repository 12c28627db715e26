"""The parameters that a trace refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

from edgezo_export.operators.embedding import TableForm
from edgezo_export.operators.layers import Quant
from edgezo_export.operators.linear import FormOf
from edgezo_export.sources.stored_codes import CodeForm

_PREFIX = "model."
"""The tracing wrapper puts this before every parameter name."""


@dataclass(slots=True)
class Checkpoint:
    """Names and values of the parameters that a trace refers to.

    Attributes:
        tied: parameter name -> the name it shares its values with.
        buffers: values of non-parameter tensors.
        vocab_size: rows of the embedding.
        form_of: tells the forms of weights that are kept.
    """

    tied: Mapping[str, str]
    buffers: Mapping[str, torch.Tensor]
    vocab_size: int
    form_of: FormOf | None = None

    def name(self, value: ir.Value) -> str:
        """Return the checkpoint's name of a traced initializer; tied parameters share one."""
        name = str(value.name).removeprefix(_PREFIX)
        return self.tied.get(name, name)

    def table_form(self, name: str, quant: Quant) -> TableForm:
        """Return the form of an embedding or a head, where that of the weights is `quant`."""
        if quant != "keep" or self.form_of is None:
            return quant
        form = self.form_of(name)
        return form if isinstance(form, CodeForm) else ("fp16" if form == "F16" else "fp32")
