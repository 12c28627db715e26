"""Voices: the base model or one of its adapters, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgezo_runtime.errors import UsageError, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgezo_runtime.data.reading import Reading
    from edgezo_runtime.data.scope import Scope

    Tensors = Mapping[str, npt.NDArray[np.float32]]

BASE = "base"
"""Name of the voice without an adapter, where nothing else is given."""


@dataclass(frozen=True, slots=True)
class Voice:
    """The trainables that a text is written with.

    Attributes:
        name: what users call it.
        tensors: gives every trainable input by name; the same object as long as nothing changes.
        scope: tokens that they act on.
        reading: how the rows were read that it was tuned on; None if that is not known.
        keeps: may keys and values be kept for the next text? Not where the tensors still change.
        created_s: when it was made, in seconds since 1970.
    """

    name: str
    tensors: Callable[[], Tensors]
    scope: Scope = "all"
    reading: Reading | None = None
    keeps: bool = True
    created_s: int = 0

    @property
    def template(self) -> str | None:
        """The template of the rows that it was tuned on; None if there was none."""
        return None if self.reading is None else self.reading.template


def fixed(tensors: Tensors) -> Callable[[], Tensors]:
    """Tensors that do not change."""
    return lambda: tensors


def parse_named(text: str) -> tuple[str, str]:
    """Split [NAME=]PATH; without a name it is that of the path's last part.

    Raises:
        UsageError: the name is empty, or has characters that no name should have.
    """
    name, equals, path = text.partition("=")
    if not equals:
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        last = parts[-1] if parts else ""
        if last == "adapter.safetensors" and len(parts) > 1:
            last = parts[-2]
        name, path = last.removesuffix(".safetensors"), text
    plain = name and name.isprintable() and not set(name) & set(" \t/\\\"'")
    if not plain or len(name) > 100 or not path:
        raise UsageError(
            f"`adapter` {printable(text)!r}: give NAME=RUN, the name in letters, digits and -_.:"
        )
    return name, path


def by_name(voices: list[Voice]) -> dict[str, Voice]:
    """Voices by name.

    Raises:
        UsageError: two have the same name.
    """
    found: dict[str, Voice] = {}
    for voice in voices:
        if voice.name in found:
            raise UsageError(
                f"two models are called {voice.name!r}; give one another name: `adapter` NAME=RUN"
            )
        found[voice.name] = voice
    return found
