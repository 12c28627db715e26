"""Settings of `edgezo chat`."""

from __future__ import annotations

from dataclasses import dataclass

from edgezo.cli.generate.settings import GenerationSettings
from edgezo.cli.settings.device import DeviceSettings
from edgezo.cli.settings.options import setting
from edgezo.cli.settings.process import (
    budget_setting,
    context_setting,
    threads_setting,
    verify_setting,
)
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings(DeviceSettings):
    """Settings of `edgezo chat` besides those of the answers."""

    adapter: tuple[str, ...] = setting(
        (),
        "run folder or adapter file, with a name to call it by; the first one answers at first; "
        "may be given several times",
        metavar="[NAME=]RUN",
    )
    system: str | None = setting(None, "system message", metavar="TEXT")
    context: int = context_setting("the conversation, the answer included")
    budget: str = budget_setting("auto")
    threads: int = threads_setting()
    verify: bool = verify_setting()

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            UsageError: naming the flag.
        """
        for name in ("context", "threads"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} {getattr(self, name)}: must be 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSettings(GenerationSettings):
    """Answers are longer than texts of `edgezo generate`."""

    max_new_tokens: int = setting(512, "longest answer, in tokens", metavar="N")
