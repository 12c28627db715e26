"""Output of commands: the result on stdout, notes and warnings on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from edgezo.cli.settings.flags import with_flags
from edgezo.cli.terminal.code_page import can_write
from edgezo.cli.terminal.quiet import is_quiet
from edgezo_runtime.errors import printable

_LONGEST_LINE = 4000

json_option = click.option(
    "--json", "as_json", is_flag=True, help="print the result as one JSON object"
)


def print_result(result: Mapping[str, Any], lines: list[str], as_json: bool) -> None:
    """Print a result.

    Args:
        result: the result for machines.
        lines: the result for people.
        as_json: print the one for machines.
    """
    text = "\n".join(lines)
    if as_json:
        text = json.dumps(result, ensure_ascii=False)
        text = text if can_write(text) else json.dumps(result)
    click.echo(text)


def note(text: str) -> None:
    """Print a note on stderr, unless the command is quiet."""
    if not is_quiet():
        click.echo(text, err=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"warning: {harmless(with_flags(text))}", err=True)


def harmless(text: str) -> str:
    """A message without control characters: a text of strangers in it must not steer a terminal."""
    return "\n".join(printable(line, _LONGEST_LINE) for line in text.splitlines())


def table(rows: list[tuple[str, str]]) -> list[str]:
    """Lines of two aligned columns."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {value}".rstrip() for name, value in rows]
