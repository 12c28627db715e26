"""`edgezo runs`: the group; `list` is what it does without another command."""

from __future__ import annotations

import click

from edgezo.cli.lazy_group import LazyGroup


class _ListByDefault(LazyGroup):
    """A group that takes `list` where no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` before arguments that begin with no command."""
        first = args[0] if args else ""
        if first not in self.list_commands(ctx) and first not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    name="runs",
    cls=_ListByDefault,
    verbs={
        "list": "edgezo.cli.runs.list_runs",
        "show": "edgezo.cli.runs.show",
        "rm": "edgezo.cli.runs.remove",
    },
    short_help="List runs, show one, or remove some.",
)
def command() -> None:
    """List runs, show one, or remove some.

    'edgezo runs' lists the runs below the folder runs, 'edgezo runs DIR' those below another one.
    """
