"""Facts that follow from the config of a model: its class with a head, and its sizes."""

from __future__ import annotations

from typing import Any, Literal

from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedConfigManager
from transformers import PretrainedConfig, PreTrainedModel

from edgezo_export.errors import UnsupportedModelError
from edgezo_runtime.bundle.manifest_types import ModelTask

Task = Literal["auto", "causal-lm", "masked-lm", "classification", "embedding"]

_OPTIMUM_TASK = {
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "classification": "text-classification",
    "embedding": "feature-extraction",
}
_ENCODERS = "MaskedLM"
_CLASSIFIERS = "ForSequenceClassification"

KNOWN = (
    "bert",
    "bloom",
    "cohere",
    "deberta-v2",
    "distilbert",
    "electra",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "granite",
    "granitemoehybrid",
    "lfm2",
    "llama",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "modernbert",
    "olmo2",
    "olmo3",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_5_text",
    "qwen3_moe",
    "qwen3_next",
    "roberta",
    "smollm3",
    "starcoder2",
    "xlm-roberta",
)
"""Architectures whose every graph is tested against torch; others can be exported too if their
layers can be separated."""

_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert"})
"""Architectures whose positions start after the padding index."""


def model_class(config: PretrainedConfig, task: Task) -> tuple[type[PreTrainedModel], ModelTask]:
    """Return the class with the head of a task, and the resolved task.

    Raises:
        UnsupportedModelError: the architecture has no class for the task, it is a decoder and the
            task is one of encoders, or its head does not choose one of several classes.
    """
    architectures = config.architectures or []
    if task == "auto":
        task = "masked-lm" if any(_ENCODERS in name for name in architectures) else "causal-lm"
        if any(_CLASSIFIERS in name for name in architectures):
            task = "classification"
    if task in ("classification", "embedding") and not is_encoder(config):
        advice = (
            "; export it with `task` causal-lm and tune label words, which need no head"
            if task == "classification"
            else "; take an encoder such as BERT"
        )
        raise UnsupportedModelError(
            f"`task` {task}: {config.model_type!r} is not an encoder, which reads in both "
            f"directions{advice}"
        )
    if task == "classification":
        _refuse_other_heads(config)
    mapping = _auto_class(_OPTIMUM_TASK[task])._model_mapping
    if type(config) not in mapping:
        raise UnsupportedModelError(
            f"architecture {config.model_type!r} has no {task} class{_other_task(config, task)}; "
            f"known to work: {', '.join(KNOWN)}"
        )
    found = mapping[type(config)]
    return (found[0] if isinstance(found, tuple) else found), task


def _refuse_other_heads(config: PretrainedConfig) -> None:
    kind = getattr(config, "problem_type", None)
    if kind in ("regression", "multi_label_classification"):
        reason = f"the config says problem_type {kind}"
    elif (config.num_labels or 0) < 2:
        reason = "the head has one output, which is a number and no class"
    else:
        return
    raise UnsupportedModelError(
        f"`task` classification: {reason}; a classification head chooses one of two classes or "
        f"more; export with `task` masked-lm and tune label words"
    )


def is_encoder(config: PretrainedConfig) -> bool:
    """Can models of this config fill in masked words? Then they read in both directions."""
    return type(config) in _auto_class(_OPTIMUM_TASK["masked-lm"])._model_mapping


def model_sizes(config: PretrainedConfig) -> dict[str, int]:
    """Return the sizes under the names of `ModelInfo`, whatever the architecture calls them.

    Raises:
        UnsupportedModelError: the config lacks one of them.
    """
    text = config.get_text_config()
    manager = NormalizedConfigManager
    kind = text.model_type.replace("_", "-")
    known = manager.get_normalized_config_class(kind)(text) if kind in manager._conf else text
    for name in ("hidden_size", "vocab_size"):
        if not isinstance(getattr(known, name, None), int):
            raise UnsupportedModelError(f"architecture {text.model_type!r}: config has no {name}")
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    max_seq = int(limit or 2048)
    if text.model_type in _OFFSET_POSITIONS:
        max_seq -= int(text.pad_token_id or 0) + 1
    return {
        "hidden_size": int(known.hidden_size),
        "vocab_size": int(known.vocab_size),
        "max_seq": max_seq,
    }


def _other_task(config: PretrainedConfig, task: str) -> str:
    for name in ("causal-lm", "masked-lm"):
        optimum_name = _OPTIMUM_TASK[name]
        if name != task and type(config) in _auto_class(optimum_name)._model_mapping:
            return f", but it has one for `task` {name}"
    return ""


def _auto_class(optimum_task: str) -> Any:
    return TasksManager.get_model_class_for_task(optimum_task)
