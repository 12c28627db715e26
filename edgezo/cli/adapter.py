"""`edgezo adapter`: adapters of other tools, out and in."""

from __future__ import annotations

import click

from edgezo.cli.lazy_group import LazyGroup


@click.group(
    name="adapter",
    cls=LazyGroup,
    verbs={
        "export": "edgezo.cli.adapter_export",
        "import": "edgezo.cli.adapter_import",
    },
    short_help="Hand out what a run made, or take in what others made.",
)
def command() -> None:
    """Hand out what a run made, or take in what others made."""
