"""Settings of generated texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgezo.cli.settings.options import setting

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
