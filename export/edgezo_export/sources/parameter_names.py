"""Find the parameters of a model in a checkpoint that may spell their names differently."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

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
        if getattr(config.get_text_config(), "tie_word_embeddings", False):
            for model_class in classes:
                self._tied.update(model_class._tied_weights_keys or {})
            self._tied |= {source: name for name, source in self._tied.items()}
        self._renamed = _renamed(classes, stored)

    def find(self, name: str) -> str | None:
        """Return the name of a parameter in the checkpoint, or None."""
        for candidate in (name, self._tied.get(name)):
            if candidate is None:
                continue
            for spelling in self._spellings(candidate):
                if spelling in self._stored:
                    return spelling
                if spelling in self._renamed:
                    return self._renamed[spelling]
        return None

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
    from transformers import conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    transforms_of = cast(
        "Callable[[str], list[Any] | None]", conversion_mapping.get_checkpoint_conversion_mapping
    )
    found: dict[str, str] = {}
    for model_class in classes:
        kind = getattr(model_class.config_class, "model_type", "")
        for transform in transforms_of(model_class.__name__) or transforms_of(kind) or ():
            if type(transform) is not WeightRenaming:  # others compute new values
                continue
            for name in stored:
                current, _ = transform.rename_source_key(name)
                if current != name:
                    found.setdefault(current, name)
    return found


def causal_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class with a causal language-model head.

    Raises:
        KeyError: this config has no such class.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return cast("type[PreTrainedModel]", MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])


def model_classes(config: PretrainedConfig) -> list[type[PreTrainedModel]]:
    """Return the classes that a checkpoint may come from: those it names, and those with heads."""
    import transformers

    found: list[Any] = [getattr(transformers, name, None) for name in config.architectures or ()]
    for mapping in (
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
    ):
        if type(config) in mapping:
            found.append(mapping[type(config)])
    return [item for item in dict.fromkeys(found) if item is not None]
