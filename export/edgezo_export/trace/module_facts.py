"""Facts of a model that its trace lacks: layers, buffers, tied parameters and the embedding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from edgezo_export.trace.rotary_scaling import add_long_frequencies


def repeated_layers(model: PreTrainedModel) -> list[str]:
    """Return the paths of the longest ModuleList whose members share one class."""
    best: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, torch.nn.ModuleList) or len(module) <= len(best):
            continue
        if len({type(child) for child in module}) == 1:
            best = [f"{path}.{index}" for index in range(len(module))]
    return best


class _NoStorage(TorchFunctionMode):
    """Puts uninitialized tensors (parameters) on the meta device; computed tensors stay real."""

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


def buffer_values(
    config: PretrainedConfig, model_class: type[PreTrainedModel]
) -> dict[str, torch.Tensor]:
    """Compute the buffers (rotary frequencies, position tables), which no checkpoint holds."""
    with _NoStorage(), no_init_weights():
        model = model_class(config)
        add_long_frequencies(model)
    return {name: value for name, value in model.named_buffers() if not value.is_meta}


def token_embedding(model: PreTrainedModel) -> str:
    """Return the parameter name of the token embedding."""
    table = model.get_input_embeddings().weight
    return next(name for name, parameter in model.named_parameters() if parameter is table)


def tied_parameters(model: PreTrainedModel) -> dict[str, str]:
    """Map each parameter that shares its storage to the first one with that storage."""
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = first.setdefault(id(parameter), name)
        if owner != name:
            tied[name] = owner
    return tied


def untie(model: PreTrainedModel, names: Collection[str]) -> None:
    """Give parameters a storage of their own."""
    for name in names:
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        module.register_parameter(own, torch.nn.Parameter(torch.empty_like(getattr(module, own))))
