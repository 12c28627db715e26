"""`edgezo chat`: a conversation with a bundle, with and without its adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from edgezo.cli.generate.settings import GenerationSettings
from edgezo.cli.settings.config_file import config_option
from edgezo.cli.settings.grouped_command import GroupedCommand, OptionGroups
from edgezo.cli.settings.options import build, options_of, setting
from edgezo.cli.terminal.quiet import quiet_option
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
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


_GROUPS: OptionGroups = {
    "Conversation": ("adapter", "system", "context"),
    "Answers": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop"),
    "Budget": ("budget", "threads", "verify"),
}


@click.command(
    name="chat",
    cls=GroupedCommand,
    groups=_GROUPS,
    short_help="Talk to a bundle, with and without its adapters.",
)
@click.argument("bundle", required=False)
@config_option(ChatSettings, AnswerSettings)
@options_of(ChatSettings, AnswerSettings)
@quiet_option
def command(bundle: str | None, **values: Any) -> None:
    """Talk to BUNDLE. Answers are shown as they grow; /help lists the commands.

    Without BUNDLE, take that of the adapter's run, else SmolLM2-135M-Instruct. Each line of the
    standard input is a message; on a pipe, nothing but the answers goes to stdout.

    /adapter off answers without the adapter, and /again answers the last message once more.
    """
    settings, generation = build(ChatSettings, values), build(AnswerSettings, values)
    settings.check()
    config = generation.config()
    from edgezo.cli.chat.session import chat

    chat(bundle, settings, config)
