"""Find the parameters of a model in a checkpoint that may spell their names differently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from edgezo_export.sources.expert_matrices import ExpertMatrix, ExpertNames, Tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_LEGACY = ((".LayerNorm.weight", ".LayerNorm.gamma"), (".LayerNorm.bias", ".LayerNorm.beta"))


class NameResolver:
    """Maps parameter names of the model class to names in the checkpoint.

    Spellings are tried in this order: the name; the name with or without the prefix of the base
    model ("model.", "transformer.", "roberta."), for checkpoints saved from the base model or from
    the whole; the names of old BERT layer norms; names that transformers renames when it loads this
    class ("embed_out" of GPT-NeoX). The same follows for the parameter that the class ties it to,
    if the config ties embeddings.
    """

    def __init__(self, config: PretrainedConfig, stored: Collection[str]) -> None:
        self._stored = stored
        classes = model_classes(config)
        self._prefixes = [f"{c.base_model_prefix}." for c in classes if c.base_model_prefix]
        self._tied: dict[str, str] = {}
        for model_class in classes:
            self._tied.update(model_class._tied_weights_keys or {})
        self._ties = frozenset(self._tied)
        if getattr(config.get_text_config(), "tie_word_embeddings", False):
            self._tied |= {source: name for name, source in self._tied.items()}
        else:
            self._tied = {}
        self._renamed = _renamed(classes, stored)
        self._experts = ExpertNames(transforms(classes), self.stored)

    def expert(self, name: str, tensors: Tensors) -> ExpertMatrix | None:
        """Return the matrix of an expert; None for any other name."""
        return self._experts.find(name, tensors)

    def find(self, name: str) -> str | None:
        """Return the name of a parameter in the checkpoint, or None."""
        tied = self._tied.get(name)
        found = self.stored(name) or (self.stored(tied) if tied is not None else [])
        return found[0] if found else None

    def ties(self, name: str) -> bool:
        """Would the class tie a parameter to another one, if the config said so?"""
        return name in self._ties

    def stored(self, name: str) -> list[str]:
        """Return all names in the checkpoint that stand for a parameter, whatever it is tied to."""
        found: dict[str, None] = {}
        for spelling in self._spellings(name):
            if spelling in self._stored:
                found[spelling] = None
            elif spelling in self._renamed:
                found[self._renamed[spelling]] = None
        return list(found)

    def _spellings(self, name: str) -> list[str]:
        found = [name]
        for prefix in self._prefixes:
            found.append(name.removeprefix(prefix) if name.startswith(prefix) else prefix + name)
        for current, old in _LEGACY:
            if name.endswith(current):
                found += [spelling.removesuffix(current) + old for spelling in found]
        return found


def _renamed(classes: list[type[PreTrainedModel]], stored: Collection[str]) -> dict[str, str]:
    """Map current to stored names of the tensors that transformers renames on loading."""
    from transformers.core_model_loading import WeightRenaming

    found: dict[str, str] = {}
    for transform in transforms(classes):
        if type(transform) is not WeightRenaming:  # others compute new values
            continue
        for name in stored:
            current, _ = transform.rename_source_key(name)
            if current != name:
                found.setdefault(current, name)
    return found


def transforms(classes: Sequence[type[PreTrainedModel]]) -> Iterator[Any]:
    """Yield what transformers does to the tensors of a checkpoint when it loads these classes."""
    from transformers import conversion_mapping

    transforms_of = cast(
        "Callable[[str], list[Any] | None]", conversion_mapping.get_checkpoint_conversion_mapping
    )
    for model_class in classes:
        kind = getattr(model_class.config_class, "model_type", "")
        yield from transforms_of(model_class.__name__) or transforms_of(kind) or ()


def causal_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class with a causal language-model head.

    Raises:
        KeyError: this config has no such class.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return cast("type[PreTrainedModel]", MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])


def vocabulary_parameters(
    config: PretrainedConfig, model_class: type[PreTrainedModel]
) -> list[str]:
    """Return the names of the parameters with a row per token: embeddings, head and its bias.

    They are those whose first axis grows with the vocabulary.

    Raises:
        ValueError: another axis grows as well.
    """
    import copy

    import torch

    shapes: list[dict[str, tuple[int, ...]]] = []
    for more in (0, 1):
        own = copy.deepcopy(config)
        own.get_text_config().vocab_size += more
        with torch.device("meta"):
            model = model_class(own)
        named = model.named_parameters(remove_duplicate=False)
        shapes.append({name: tuple(parameter.shape) for name, parameter in named})
    found = [name for name, shape in shapes[0].items() if shapes[1][name] != shape]
    for name in found:
        first, *rest = shapes[0][name]
        if shapes[1][name] != (first + 1, *rest):
            raise ValueError(f"{name!r} grows from {shapes[0][name]} to {shapes[1][name]}")
    return found


def model_classes(config: PretrainedConfig) -> list[type[PreTrainedModel]]:
    """Return the classes that a checkpoint may come from: those it names, and those with heads."""
    import transformers

    found: list[Any] = [getattr(transformers, name, None) for name in config.architectures or ()]
    for mapping in (
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
        transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    ):
        if type(config) in mapping:
            found.append(mapping[type(config)])
    return [item for item in dict.fromkeys(found) if item is not None]
