"""`edgezo chat`: a conversation with a bundle, with and without its adapters."""

from __future__ import annotations

from typing import Any

import click

from edgezo.cli.chat.settings import AnswerSettings, ChatSettings
from edgezo.cli.settings.config_file import config_option
from edgezo.cli.settings.grouped_command import GroupedCommand, OptionGroups
from edgezo.cli.settings.options import build, options_of
from edgezo.cli.terminal.quiet import quiet_option

_GROUPS: OptionGroups = {
    "Conversation": ("adapter", "system", "context"),
    "Answers": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop"),
    "Budget": ("budget", "device", "device_budget", "threads", "verify"),
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
