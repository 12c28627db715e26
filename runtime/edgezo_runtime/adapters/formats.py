"""Which formats of other tools can hold which adapters."""

from __future__ import annotations

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.bundle.trainables import SCHEME_KINDS, SchemeKind
from edgezo_runtime.errors import UsageError

_LOW_RANK: frozenset[SchemeKind] = frozenset({"lora", "lora-xs"})

FORMATS: dict[str, frozenset[str]] = {
    "peft": _LOW_RANK | {"ia3", "prompt", "prefix"},
    "gguf": _LOW_RANK,
    "mlx": _LOW_RANK | {"last-layers"},
    "onnx": _LOW_RANK,
    "safetensors": frozenset(SCHEME_KINDS),
    "merged": _LOW_RANK | {"ia3", "scales", "bitfit", "last-layers"},
}
"""Kinds of trainables that each format can store."""

CONV1D_MODELS = frozenset({"gpt2", "openai-gpt"})
"""Architectures whose linear layers are transformers' Conv1D, which stores (in, out)."""


def check_format(adapter: Adapter, name: str) -> None:
    """Refuse an adapter that a format cannot express.

    Args:
        adapter: the adapter to write.
        name: a key of `FORMATS`.
    Raises:
        UsageError: the format has no such trainables, or no way to say on which tokens they act.
            The message names the formats that fit.
    """
    kind = adapter.info.scheme.kind
    if kind not in FORMATS[name]:
        fitting = [other for other in FORMATS if _problem(adapter, other) is None]
        raise UsageError(
            f"{adapter.path}: the format {name} cannot store {kind} trainables; set "
            f"`format` to {' or '.join(sorted(fitting, key=_SAFE_FIRST.__getitem__))}"
        )
    problem = _problem(adapter, name)
    if problem is not None:
        fitting = [other for other in FORMATS if _problem(adapter, other) is None]
        raise UsageError(
            f"{adapter.path}: acts on answers only, which {name} cannot say here ({problem}); tune "
            f"with `scope` all, or set `format` to {' or '.join(fitting)}"
        )


_SAFE_FIRST = {name: -(name == "safetensors") for name in FORMATS}


def _problem(adapter: Adapter, name: str) -> str | None:
    """Why a format cannot hold an adapter; None if it can."""
    info = adapter.info
    if info.scheme.kind not in FORMATS[name]:
        return "no such trainables"
    if info.scope == "all" or name == "safetensors":
        return None
    if name not in ("peft", "gguf"):
        return "its adapters act on every token"
    if info.scheme.kind not in _LOW_RANK:
        return "there is no such adapter but LoRA"
    if info.task != "causal-lm":
        return "it is not a causal model"
    return None if info.invocation else "prompts end in different tokens"
