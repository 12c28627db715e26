"""Symbolic operators of the domain ``edgezo``, which stand for parts of a model in its trace.

Linear layers, attention, rotary embedding and RMS norm are replaced while a model is traced; the
lowering turns them into ONNX operators. Rotary functions and norm classes are recognized by what
they compute on random numbers, not by their names: an architecture that deviates stays as traced.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import logging
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.trace.experts import expert_symbols
from edgezo_export.trace.masks import MaskFunction, read_mask

DOMAIN = "edgezo"
ATTENTION = "edgezo_trace"
"""The name under which transformers knows the symbolic attention."""

_IGNORED_ARGUMENTS = frozenset(("cache_position", "position_ids"))


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
    sinks = kwargs.pop("s_aux", None)
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
    inputs: list[torch.Tensor | None] = [query, key, value]
    if attention_mask is not None or sinks is not None:
        inputs.append(attention_mask)
    if sinks is not None:  # (N,): one more score per head, of a key without a value
        inputs.append(sinks)
    return _symbolic("Attention", inputs, attrs, shape, query.dtype), None


def _mask(causal: bool, max_seq: int) -> Callable[..., torch.Tensor]:
    """Make the mask interface: a mask is one symbol that tells the attention what it computes."""

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
def attention_symbols(causal: bool, max_seq: int) -> Iterator[None]:
    """Register the symbolic attention and mask with transformers while tracing."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, _mask(causal, max_seq))
    level = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with expert_symbols(_symbolic):
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


def _rotary(original: Callable[..., Any], forms: frozenset[_Form]) -> Callable[..., Any]:
    def apply_rotary_pos_emb(
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        unsqueeze_dim: int = 1,
    ) -> Any:
        width, table = q.shape[-1], cos.shape[-1]
        form = _Form.WHOLE
        if table < width:
            form = _Form.HALF if _Form.HALF in forms and 2 * table == width else _Form.PART
        if form not in forms or table > width or unsqueeze_dim != 1 or cos.ndim != 3:
            return original(q, k, cos, sin, unsqueeze_dim=unsqueeze_dim)
        attrs = {"half": int(form is _Form.HALF)}
        return (
            _symbolic("Rotary", [q, cos, sin], attrs, q.shape, q.dtype),
            _symbolic("Rotary", [k, cos, sin], attrs, k.shape, k.dtype),
        )

    return apply_rotary_pos_emb


@contextlib.contextmanager
def layer_symbols(model: PreTrainedModel) -> Iterator[None]:
    """Replace linear layers, norms and rotary functions by symbolic operators while tracing."""
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            forward = _symbol_for(module)
            if forward is not None:
                module.forward = types.MethodType(forward, module)
                stack.callback(module.__dict__.pop, "forward", None)
        source = sys.modules[type(model).__module__]
        original = getattr(source, "apply_rotary_pos_emb", None)
        forms = frozenset[_Form]() if original is None else _rotary_forms(original)
        if original is not None and forms:
            vars(source)["apply_rotary_pos_emb"] = _rotary(original, forms)
            stack.callback(setattr, source, "apply_rotary_pos_emb", original)
        yield


def _symbol_for(module: torch.nn.Module) -> Callable[..., torch.Tensor] | None:
    if type(module) is torch.nn.Linear:
        return _linear
    if type(module) is Conv1D:
        return _conv1d
    if "RMSNorm" in type(module).__name__:
        return _recognize_rms_norm(module)
    return None


def _recognize_rms_norm(module: torch.nn.Module) -> Callable[..., torch.Tensor] | None:
    """Check on random numbers that a module is an RMS norm, with gain w or 1 + w."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or not isinstance(eps, float):
        return None
    if len(inspect.signature(type(module).forward).parameters) != 2:  # such as a gated norm
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


class _Form(enum.Enum):
    """The tables cos and sin of a rotary function, for heads of width D.

    WHOLE: (1, S, D), whose halves are equal. HALF: one half of it. PART: (1, S, r); the first r
    numbers of each head are turned, the rest stays.
    """

    WHOLE = enum.auto()
    HALF = enum.auto()
    PART = enum.auto()


def _rotary_forms(function: Callable[..., Any]) -> frozenset[_Form]:
    """Check on random numbers which forms of the usual rotary embedding a function computes.

    It is x * cos + rotate_half(x) * sin.
    """
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 3, 5, 8, generator=generator).unbind(0)
    half = torch.randn(1, 5, 4, generator=generator)
    angles = torch.cat((half, half), -1)
    quarter = torch.cat((half[..., :2], half[..., :2]), -1)

    def turned(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return x * by.cos()[:, None] + _rotate_half(x) * by.sin()[:, None]

    def part(x: torch.Tensor) -> torch.Tensor:
        return torch.cat((turned(x[..., :4], quarter), x[..., 4:]), -1)

    cases: dict[_Form, tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]] = {
        _Form.WHOLE: (angles, lambda x: turned(x, angles)),
        _Form.HALF: (half, lambda x: turned(x, angles)),
        _Form.PART: (quarter, part),
    }
    found = set()
    for form, (table, expected) in cases.items():
        try:
            got = function(q, k, table.cos(), table.sin())
        except (TypeError, ValueError, RuntimeError):
            continue
        if all(
            own.shape == x.shape and torch.allclose(own, expected(x), atol=1e-6)
            for own, x in zip(got, (q, k), strict=True)
        ):
            found.add(form)
    return frozenset(found)


def _rotate_half(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)
