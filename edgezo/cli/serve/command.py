"""`edgezo serve`: the OpenAI API of chats and completions, for a bundle and its adapters."""

from __future__ import annotations

from typing import Any

import click

from edgezo.cli.serve.settings import ServeSettings
from edgezo.cli.settings.config_file import config_option
from edgezo.cli.settings.grouped_command import GroupedCommand, OptionGroups
from edgezo.cli.settings.options import build, options_of
from edgezo.cli.terminal.quiet import quiet_option

_GROUPS: OptionGroups = {
    "Models": ("adapter", "name", "verify"),
    "Clients": ("host", "port", "api_key", "allow_host", "allow_origin", "queue", "body_limit"),
    "Answers": ("max_new_tokens", "context", "temperature", "stop"),
    "Budget": ("budget", "device", "device_budget", "threads"),
}


@click.command(
    name="serve",
    cls=GroupedCommand,
    groups=_GROUPS,
    short_help="Serve a bundle and its adapters by the OpenAI API.",
)
@click.argument("bundle", required=False)
@config_option(ServeSettings)
@options_of(ServeSettings)
@quiet_option
def command(bundle: str | None, **values: Any) -> None:
    """Serve BUNDLE and its adapters by the OpenAI API of chats and completions.

    Without BUNDLE, take that of the first adapter's run, else SmolLM2-135M-Instruct. Each adapter
    is a model of its own; the bundle without an adapter is one as well. Requests are answered one
    after another. Ctrl-C ends the server.
    """
    settings = build(ServeSettings, values)
    settings.check()
    from edgezo.cli.serve.work import serve

    serve(bundle, settings)
