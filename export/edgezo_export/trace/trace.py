"""Trace a Hugging Face model to one ONNX graph of structural operators, without its weights.

The model is built on torch's meta device, so the cost is the same for 135 M and for 70 B
parameters. Before tracing, the parts whose meaning matters later are replaced by symbolic operators
(`edgezo_export.trace.symbols`).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from edgezo_export.trace.experts import EXPERTS
from edgezo_export.trace.module_facts import (
    buffer_values,
    repeated_layers,
    tied_parameters,
    token_embedding,
    untie,
)
from edgezo_export.trace.recurrences import traceable_recurrences
from edgezo_export.trace.rotary_scaling import (
    add_long_frequencies,
    is_dynamic,
    switch,
    traceable_scaling,
)
from edgezo_export.trace.symbols import ATTENTION, attention_symbols, layer_symbols

_OPSET = 21
_EXAMPLE_ROWS, _EXAMPLE_TOKENS = 3, 7

Separate = Callable[[Mapping[str, str]], Collection[str]]
"""Given parameters and what each is tied to; returns those that have values of their own."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced model.

    Attributes:
        model: ONNX model with operators of the domain ``edgezo``; inputs ``input_ids`` (B, S) int64
            and, for encoders, ``attention_mask`` (B, S) int64; output: logits (B, S, V), of a
            classification head (B, C), or of a model without a head its states (B, S, H).
            Initializers have no data and are named as the module's parameters.
        layers: module paths of the repeated layers, in execution order.
        buffers: values of the non-parameter tensors the graph refers to, by name.
        tied: parameter name -> the name it shares its storage with.
        embedding: parameter name of the token embedding.
        rotary_switch: tokens of the longest sequence with the first set of rotary frequencies;
            None if there is one set.
        dynamic_rotary: does the model change the frequencies with the length of every sequence that
            is longer than `max_seq`?
    """

    model: ir.Model
    layers: tuple[str, ...]
    buffers: dict[str, torch.Tensor]
    tied: dict[str, str]
    embedding: str
    rotary_switch: int | None = None
    dynamic_rotary: bool = False


def trace_model(
    config: PretrainedConfig,
    model_class: type[PreTrainedModel],
    *,
    causal: bool,
    max_seq: int,
    separate: Separate | None = None,
) -> Trace:
    """Trace ``model_class(config)`` on the meta device.

    Args:
        config: the model's configuration.
        model_class: class with the head of the task.
        causal: decoder (positions given, no mask) or encoder (padding mask as input).
        max_seq: upper bound of the dynamic sequence length, in tokens.
        separate: chooses the tied parameters that are not to be tied; None for none.
    Returns:
        The traced graph and what the weights writer needs to find its tensors.
    """
    config = type(config).from_dict(config.to_dict())
    config.use_cache = False
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    buffers = buffer_values(config, model_class)
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_mode as fake, attention_symbols(causal, max_seq), no_init_weights():
        model = model_class(config)
        model.tie_weights()  # skipping the initialization skips this as well
        if separate is not None:
            untie(model, separate(tied_parameters(model)))
        add_long_frequencies(model)
        model.train(False)
        model.set_attn_implementation(ATTENTION)
        model.set_experts_implementation(EXPERTS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(attention_symbols(causal, max_seq))
        stack.enter_context(layer_symbols(model))
        stack.enter_context(traceable_scaling(model))
        stack.enter_context(traceable_recurrences(model, max_seq))
        stack.enter_context(fake)
        program = _export(model, causal, max_seq)
    return Trace(
        _to_onnx(program),
        tuple(repeated_layers(model)),
        buffers,
        tied_parameters(model),
        token_embedding(model),
        switch(model, max_seq),
        is_dynamic(model),
    )


class _Decoder(torch.nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        # Without a mask transformers searches the positions for packed texts. A mask of ones is
        # right: no token sees the padding on its right.
        full = torch.ones_like(input_ids)
        out = self.model(
            input_ids=input_ids, attention_mask=full, position_ids=positions, use_cache=False
        )
        logits: torch.Tensor = out.logits
        return logits


class _Encoder(torch.nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        out = self.model(input_ids=input_ids, attention_mask=attention_mask)
        logits: torch.Tensor | None = getattr(out, "logits", None)
        return out.last_hidden_state if logits is None else logits


def _export(model: PreTrainedModel, causal: bool, max_seq: int) -> torch.export.ExportedProgram:
    ids = torch.zeros(_EXAMPLE_ROWS, _EXAMPLE_TOKENS, dtype=torch.int64)
    rows = torch.export.Dim("rows", min=2, max=1 << 20)
    tokens = torch.export.Dim("tokens", min=2, max=max_seq)
    dynamic = {0: rows, 1: tokens}
    args = (ids,) if causal else (ids, torch.ones_like(ids))
    wrapper = _Decoder(model) if causal else _Encoder(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            wrapper, args, dynamic_shapes=(dynamic,) * len(args), strict=False
        )


def _to_onnx(program: torch.export.ExportedProgram) -> ir.Model:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns every user that torchvision is missing
    try:
        with warnings.catch_warnings():
            # torch 2.13 calls its own deprecated pytree check
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            onnx_program = torch.onnx.export(
                program, dynamo=True, opset_version=_OPSET, optimize=False, verbose=False
            )
    finally:
        logger.setLevel(level)
    if onnx_program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return onnx_program.model
