"""Trace a Hugging Face model to one ONNX graph of structural operators, without its weights.

The model is built on torch's meta device, so the cost is the same for 135 M and for 70 B
parameters. Before tracing, the pieces whose meaning matters later (linears, attention, rotary
embedding, RMS norm) are replaced by symbolic operators of the domain ``edgezo``; the rewriter
lowers them to real ONNX. Rotary functions and norm classes are recognised by what they compute on
random numbers, not by their names, so an architecture that deviates is simply left as traced.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.trace.masks import MaskFunction, read_mask

DOMAIN = "edgezo"
ATTENTION = "edgezo_trace"

_OPSET = 21
_EXAMPLE_ROWS, _EXAMPLE_TOKENS = 3, 7
_IGNORED_ARGUMENTS = frozenset(("cache_position", "position_ids"))


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced model.

    Attributes:
        model: ONNX model with operators of the domain ``edgezo``; inputs ``input_ids`` (B, S) int64
            and, for encoders, ``attention_mask`` (B, S) int64; output: logits (B, S, V).
            Initializers have no data and are named as the module's parameters.
        layers: module paths of the repeated layers, in execution order.
        buffers: values of the non-parameter tensors the graph refers to, by name.
        tied: parameter name -> the name it shares its storage with.
        embedding: parameter name of the token embedding.
    """

    model: ir.Model
    layers: tuple[str, ...]
    buffers: dict[str, torch.Tensor]
    tied: dict[str, str]
    embedding: str


def trace_model(
    config: PretrainedConfig, model_class: type[PreTrainedModel], *, causal: bool, max_seq: int
) -> Trace:
    """Trace ``model_class(config)`` on the meta device.

    Args:
        config: the model's configuration.
        model_class: class with a language-model head.
        causal: decoder (positions given, no mask) or encoder (padding mask as input).
        max_seq: upper bound of the dynamic sequence length, in tokens.
    Returns:
        The traced graph and what the weights writer needs to find its tensors.
    """
    config = type(config).from_dict(config.to_dict())
    config.use_cache = False
    config._attn_implementation = "eager"
    buffers = _buffers(config, model_class)
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_mode as fake, _attention_symbols(causal, max_seq), no_init_weights():
        model = model_class(config)
        model.tie_weights()  # which skipping initialisation skips as well
        model.train(False)
        model.set_attn_implementation(ATTENTION)
    with _attention_symbols(causal, max_seq), _symbols(model, config), fake:
        program = _export(model, causal, max_seq)
    return Trace(
        _to_onnx(program),
        tuple(_layer_paths(model)),
        buffers,
        _tied(model),
        _embedding(model),
    )


class _Decoder(torch.nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        # Without a mask transformers searches the positions for packed texts. Of what is padded
        # on the right no token before it sees anything.
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
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


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
    logger.setLevel(logging.ERROR)  # it tells every user that torchvision is missing
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


# --- symbolic operators ------------------------------------------------------------------------


def _symbolic(
    name: str,
    inputs: Sequence[torch.Tensor | None],
    attrs: dict[str, Any],
    shape: Any,
    dtype: torch.dtype,
) -> torch.Tensor:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", inputs, attrs, dtype=dtype, shape=shape, version=1
    )


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    for name, argument in kwargs.items():
        if isinstance(argument, torch.Tensor) and name not in _IGNORED_ARGUMENTS:
            raise UnsupportedModelError(f"attention with {name}")
    rows, _, tokens, _ = query.shape
    causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", True))
    attrs = {
        "scale": float(scaling if scaling is not None else query.shape[-1] ** -0.5),
        "causal": int(causal),  # without a mask; what a mask says comes first
        "softcap": float(softcap or 0.0),
    }
    shape = (rows, tokens, query.shape[1], value.shape[-1])
    inputs = [query, key, value] + ([] if attention_mask is None else [attention_mask])
    return _symbolic("Attention", inputs, attrs, shape, query.dtype), None


def _mask(causal: bool, max_seq: int) -> Callable[..., torch.Tensor]:
    """A mask is one symbol that tells the attention what it computes."""

    def mask_interface(
        *, mask_function: MaskFunction, attention_mask: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        seen = read_mask(mask_function, max_seq)
        if seen.causal is not causal:
            task = "causal" if causal else "masked"
            raise UnsupportedModelError(f"a {task} language model with a mask {seen}")
        attrs = {"causal": int(seen.causal), "window": seen.window}
        padding = attention_mask.to(torch.int32)
        return _symbolic("Mask", [padding], attrs, (1, 1, 1, 1), torch.int32)

    return mask_interface


@contextlib.contextmanager
def _attention_symbols(causal: bool, max_seq: int) -> Iterator[None]:
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, _mask(causal, max_seq))
    level = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger("transformers").setLevel(level)
        type(ALL_ATTENTION_FUNCTIONS)._global_mapping.pop(ATTENTION, None)
        type(ALL_MASK_ATTENTION_FUNCTIONS)._global_mapping.pop(ATTENTION, None)


def _linear(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    inputs = [x, self.weight] + ([] if self.bias is None else [self.bias])
    return _symbolic("Linear", inputs, {}, (*x.shape[:-1], self.out_features), x.dtype)


def _conv1d(self: Conv1D, x: torch.Tensor) -> torch.Tensor:
    shape = (*x.shape[:-1], self.nf)
    return _symbolic("Linear", [x, self.weight, self.bias], {"in_out": 1}, shape, x.dtype)


def _rms_norm(eps: float, plus_one: bool) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        attrs = {"epsilon": eps, "plus_one": int(plus_one)}
        return _symbolic("RmsNorm", [x, self.weight], attrs, x.shape, x.dtype)

    return forward


def _rotary(original: Callable[..., Any]) -> Callable[..., Any]:
    def apply_rotary_pos_emb(
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        unsqueeze_dim: int = 1,
    ) -> Any:
        if cos.shape[-1] != q.shape[-1] or unsqueeze_dim != 1:  # a part of each head; other axes
            return original(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        return (
            _symbolic("Rotary", [q, cos, sin], {}, q.shape, q.dtype),
            _symbolic("Rotary", [k, cos, sin], {}, k.shape, k.dtype),
        )

    return apply_rotary_pos_emb


@contextlib.contextmanager
def _symbols(model: PreTrainedModel, config: PretrainedConfig) -> Iterator[None]:
    """Replace linears, norms and rotary functions by symbolic operators while tracing."""
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            forward = _symbol_for(module)
            if forward is not None:
                module.forward = types.MethodType(forward, module)
                stack.callback(module.__dict__.pop, "forward", None)
        source = sys.modules[type(model).__module__]
        original = getattr(source, "apply_rotary_pos_emb", None)
        if original is not None and _is_standard_rotary(original):
            vars(source)["apply_rotary_pos_emb"] = _rotary(original)
            stack.callback(setattr, source, "apply_rotary_pos_emb", original)
        yield


def _symbol_for(module: torch.nn.Module) -> Callable[..., torch.Tensor] | None:
    if type(module) is torch.nn.Linear:
        return _linear
    if type(module) is Conv1D:
        return _conv1d
    if "RMSNorm" in type(module).__name__:
        return _recognise_rms_norm(module)
    return None


def _recognise_rms_norm(module: torch.nn.Module) -> Callable[..., torch.Tensor] | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or not isinstance(eps, float):
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, weight.shape[0], generator=generator)
    w = torch.randn(weight.shape[0], generator=generator)
    with torch.no_grad():
        got = torch.func.functional_call(module, {"weight": w}, (x,))
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    for plus_one, gain in ((False, w), (True, 1 + w)):
        if torch.allclose(got, normed * gain, rtol=1e-5, atol=1e-6):
            return _rms_norm(eps, plus_one)
    return None


def _is_standard_rotary(function: Callable[..., Any]) -> bool:
    """x * cos + rotate_half(x) * sin over the whole head, cos and sin (1, S, D), unsqueezed."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 3, 5, 8, generator=generator).unbind(0)
    half = torch.randn(1, 5, 4, generator=generator)
    angles = torch.cat((half, half), -1)
    cos, sin = angles.cos(), angles.sin()
    try:
        got_q, got_k = function(q, k, cos, sin)
    except (TypeError, ValueError, RuntimeError):
        return False
    return all(
        torch.allclose(got, x * cos[:, None] + _rotate_half(x) * sin[:, None], atol=1e-6)
        for got, x in ((got_q, q), (got_k, k))
    )


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


# --- facts about the model ---------------------------------------------------------------------


def _layer_paths(model: PreTrainedModel) -> list[str]:
    """The longest ModuleList whose members share one class: the repeated layers."""
    best: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, torch.nn.ModuleList) or len(module) <= len(best):
            continue
        if len({type(child) for child in module}) == 1:
            best = [f"{path}.{index}" for index in range(len(module))]
    return best


class _NoStorage(TorchFunctionMode):
    """Uninitialised tensors, as parameters are made, take no memory; computed ones stay real."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.empty:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


def _buffers(
    config: PretrainedConfig, model_class: type[PreTrainedModel]
) -> dict[str, torch.Tensor]:
    """Values of the buffers (rotary frequencies, position tables), which no checkpoint holds."""
    with _NoStorage(), no_init_weights():
        model = model_class(config)
    return {name: value for name, value in model.named_buffers() if not value.is_meta}


def _embedding(model: PreTrainedModel) -> str:
    table = model.get_input_embeddings().weight
    return next(name for name, parameter in model.named_parameters() if parameter is table)


def _tied(model: PreTrainedModel) -> dict[str, str]:
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = first.setdefault(id(parameter), name)
        if owner != name:
            tied[name] = owner
    return tied
