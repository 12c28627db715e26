"""Settings of generated texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgezo.cli.settings.options import setting
from edgezo_runtime.config import AnswerSettings
from edgezo_runtime.errors import printable

if TYPE_CHECKING:
    from edgezo_runtime.generation.generator import GenerationConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """Length, sampling and end of generated texts."""

    max_new_tokens: int = setting(64, "longest generated text, in tokens", metavar="N")
    temperature: float = setting(0.0, "temperature of sampling; 0 takes the likeliest token")
    top_k: int = setting(0, "number of likeliest tokens to sample from; 0 takes all", metavar="N")
    top_p: float = setting(
        1.0, "probability mass of the likeliest tokens to sample from; 1 takes all"
    )
    seed: int = setting(0, "seed of the sampling")
    stop: tuple[str, ...] = setting(
        (),
        "text that ends a generated text, and is left out of it; may be given several times",
        metavar="TEXT",
    )

    def settled(self, given: Collection[str], adapter: AnswerSettings | None) -> SettledGeneration:
        """Take what is not given from the run that scored generated answers.

        Args:
            given: names of the settings that the user gives.
            adapter: how the run generated answers; None if it did not.
        """
        if adapter is None:
            return SettledGeneration(self, {}, ())
        own = dataclasses.asdict(adapter)
        taken = {name: value for name, value in own.items() if name not in given}
        return SettledGeneration(
            dataclasses.replace(self, **taken),
            {name: "given" if name in given else "adapter" for name in own},
            tuple(
                f"`{name}` was {value!r:.80}, is {getattr(self, name)!r:.80}"
                for name, value in own.items()
                if name in given and getattr(self, name) != value
            ),
        )

    def config(self) -> GenerationConfig:
        """Make the runtime's configuration, and check it.

        Raises:
            UsageError: a value is out of range.
        """
        from edgezo_runtime.generation.generator import GenerationConfig
        from edgezo_runtime.generation.sampling import Sampling

        sampling = Sampling(self.temperature, self.top_k, self.top_p, self.seed)
        config = GenerationConfig(self.max_new_tokens, sampling, self.stop)
        config.check()
        return config


@dataclass(frozen=True, slots=True)
class SettledGeneration:
    """Settings of generated texts, and where those come from that a run has as well.

    Attributes:
        settings: the settings.
        origins: by setting: given, or adapter; empty if no run has any.
        differences: settings that are given, and differ from those of the run.
    """

    settings: GenerationSettings
    origins: dict[str, str]
    differences: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The settings and their origins, for machines."""
        return {
            "max_new_tokens": self.settings.max_new_tokens,
            "temperature": self.settings.temperature,
            "stop": list(self.settings.stop),
            "origins": self.origins,
        }

    def lines(self) -> list[tuple[str, str]]:
        """The settings that are those of the run, for people."""
        taken = [name for name, origin in self.origins.items() if origin == "adapter"]
        shown = ", ".join(f"`{name}` {_shown(getattr(self.settings, name))}" for name in taken)
        return [("generation", f"{shown} (of the adapter)")] if taken else []


def _shown(value: object) -> str:
    words = [f"{printable(word)!r}" for word in value] if isinstance(value, tuple) else [str(value)]
    return " ".join(words) or "none"
