"""docs/help.md, generated from the commands: `python -m edgezo.cli.help_document docs/help.md`.

With --check, compare the file instead of writing it, and exit with code 1 if it differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from edgezo.cli import main
from edgezo_runtime.system.files import atomic_write

WIDTH = 100

_HEAD = """# Command line

Generated from the commands by `make help-docs`; do not edit.
"""


def help_document() -> str:
    """The help of every command, in Markdown."""
    ctx = main.make_context(
        "edgezo", [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
    )
    pages = [f"## {path}\n\n```text\n{text}\n```\n" for path, text in _pages(main, ctx)]
    return "\n".join([_HEAD, *pages])


def _pages(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, str]]:
    yield ctx.command_path, command.get_help(ctx).rstrip()
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            if child is not None:
                inner = child.make_context(name, [], parent=ctx, resilient_parsing=True)
                yield from _pages(child, inner)


def run(arguments: list[str]) -> int:
    """Write or check the document.

    Args:
        arguments: the file, and --check.
    Returns:
        An exit code.
    """
    path = Path(next(argument for argument in arguments if argument != "--check"))
    text = help_document()
    if "--check" not in arguments:
        atomic_write(path, text.encode())
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{path} differs from the help of the commands; run 'make help-docs'\n")
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
