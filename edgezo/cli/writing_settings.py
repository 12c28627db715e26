"""Settings of whatever writes texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgezo.cli.options import setting

if TYPE_CHECKING:
    from edgezo_runtime.generation.generator import GenerationConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingSettings:
    """How texts are written."""

    max_new_tokens: int = setting(64, "tokens of a text, at most", metavar="N")
    temperature: float = setting(
        0.0, "0 takes the likeliest token; else tokens are drawn, the more evenly the higher it is"
    )
    top_k: int = setting(0, "draw from so many of the likeliest tokens; 0 for all", metavar="N")
    top_p: float = setting(
        1.0, "draw from the fewest likeliest tokens with this probability together; 1 for all"
    )
    seed: int = setting(0, "of the draws")
    stop: tuple[str, ...] = setting(
        (), "text that ends a text, itself left out; may be given several times", metavar="TEXT"
    )

    def writing(self) -> GenerationConfig:
        """The same for the runtime, checked.

        Raises:
            UsageError: a value makes no sense; the message names the flag.
        """
        from edgezo_runtime.generation.generator import GenerationConfig
        from edgezo_runtime.generation.sampling import Sampling

        sampling = Sampling(self.temperature, self.top_k, self.top_p, self.seed)
        writing = GenerationConfig(self.max_new_tokens, sampling, self.stop)
        writing.check()
        return writing
