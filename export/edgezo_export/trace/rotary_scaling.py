"""Rotary embeddings whose frequencies depend on the length of a sequence.

transformers computes them in Python while a model runs, which no trace can hold. Two kinds of
scaling do this (`transformers.modeling_rope_utils.dynamic_rope_update`):

    longrope   one set of frequencies for up to `original_max_position_embeddings` tokens, and
               another one for longer sequences. The trace gets both, and chooses.
    dynamic    the usual frequencies for up to `max_position_embeddings` tokens, then new ones for
               every length. The trace gets the first ones, and a bundle takes no longer sequence.
"""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from edgezo_export.errors import UnsupportedModelError

_LONG = "edgezo_long_inv_freq"
"""Ending of the names of the buffers with the frequencies of long sequences."""


def add_long_frequencies(model: PreTrainedModel) -> None:
    """Register the frequencies of long sequences as buffers, beside those of short ones."""
    for module, layer_type, kind in _scaled(model):
        if kind == "longrope":
            arguments = {} if layer_type is None else {"layer_type": layer_type}
            seq_len = _original(module, layer_type) + 1
            long, _ = ROPE_INIT_FUNCTIONS[kind](module.config, None, seq_len=seq_len, **arguments)
            module.register_buffer(_named(layer_type, _LONG), long, persistent=False)


def switch(model: PreTrainedModel, max_seq: int) -> int | None:
    """Return the tokens of the longest sequence with the frequencies of short ones.

    Args:
        model: the model.
        max_seq: tokens of the longest sequence that it takes.
    Returns:
        None if all sequences have the same frequencies.
    Raises:
        UnsupportedModelError: layers of the model switch at different lengths.
    """
    found = {
        _original(module, layer_type)
        for module, layer_type, kind in _scaled(model)
        if kind == "longrope"
    }
    if len(found) > 1:
        raise UnsupportedModelError(
            f"layers whose rotary frequencies (longrope) change at different lengths: "
            f"{', '.join(map(str, sorted(found)))} tokens"
        )
    return next((length for length in found if length < max_seq), None)


def is_dynamic(model: PreTrainedModel) -> bool:
    """Do the frequencies change with every length beyond the model's longest sequence?"""
    return any(kind == "dynamic" for _, _, kind in _scaled(model))


@contextlib.contextmanager
def traceable_scaling(model: PreTrainedModel) -> Iterator[None]:
    """Choose frequencies by tensor operators while tracing."""
    with contextlib.ExitStack() as stack:
        for module in {id(module): module for module, _, _ in _scaled(model)}.values():
            module.forward = types.MethodType(_forward, module)
            stack.callback(module.__dict__.pop, "forward", None)
        yield


class _Chosen:
    """A rotary module, with other values for some of its attributes."""

    def __init__(self, module: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
        self._module = module
        self._values = values

    def __getattr__(self, name: str) -> Any:
        found = self._values.get(name)
        return getattr(self._module, name) if found is None else found


def _forward(
    self: torch.nn.Module,
    x: torch.Tensor,
    position_ids: torch.Tensor,
    layer_type: str | None = None,
) -> Any:
    chosen: dict[str, torch.Tensor] = {}
    if _kind(self.rope_type, layer_type) == "longrope":
        name = _named(layer_type, "inv_freq")
        long = position_ids.max() + 1 > _original(self, layer_type)
        sets = getattr(self, _named(layer_type, _LONG)), getattr(self, name)
        chosen[name] = torch.where(long, *sets)
    arguments = {} if layer_type is None else {"layer_type": layer_type}
    return _plain(self)(_Chosen(self, chosen), x, position_ids, **arguments)


def _plain(module: torch.nn.Module) -> Callable[..., Any]:
    """The forward function of a class, without the decorator that updates frequencies."""
    function: Callable[..., Any] = inspect.unwrap(type(module).forward)
    return function


def _scaled(model: PreTrainedModel) -> Iterator[tuple[Any, str | None, str]]:
    """Yield the rotary modules, types of layers and kinds of scaling that depend on lengths."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for layer_type in sorted(kinds) if isinstance(kinds, dict) else [None]:
            kind = _kind(kinds, layer_type)
            if kind is not None:
                yield module, layer_type, kind


def _kind(kinds: Any, layer_type: str | None) -> str | None:
    """The kind of scaling, if it depends on lengths."""
    kind = kinds.get(layer_type) if isinstance(kinds, dict) else kinds
    if not isinstance(kind, str):
        return None
    return "dynamic" if "dynamic" in kind else kind if kind == "longrope" else None


def _original(module: Any, layer_type: str | None) -> int:
    parameters = module.config.rope_parameters
    own = parameters if layer_type is None else parameters[layer_type]
    return int(own["original_max_position_embeddings"])


def _named(layer_type: str | None, name: str) -> str:
    return name if layer_type is None else f"{layer_type}_{name}"
