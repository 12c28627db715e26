"""Settings of `edgezo chat`."""

from __future__ import annotations

from dataclasses import dataclass

from edgezo.cli.generate.settings import GenerationSettings
from edgezo.cli.settings.device import DeviceSettings
from edgezo.cli.settings.options import setting
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
    context: int = setting(
        0,
        "most tokens of the conversation, the answer included; 0 takes 4096, or as many as the "
        "model and the budget allow",
        metavar="N",
    )
    budget: str = setting(
        "auto",
        "memory that the whole process may take: 8GB, 750MB, or a share of what is free, such as "
        "50%; auto takes 80%",
        metavar="SIZE",
    )
    threads: int = setting(0, "compute threads; 0 takes one per core")
    verify: bool = setting(True, "check the digests of the bundle's files first")

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
