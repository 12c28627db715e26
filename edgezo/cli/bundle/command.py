"""`edgezo bundle`: the group."""

from __future__ import annotations

import click

from edgezo.cli.lazy_group import LazyGroup


@click.group(
    name="bundle",
    cls=LazyGroup,
    verbs={
        "info": "edgezo.cli.bundle.info",
        "quantize": "edgezo.cli.bundle.quantize",
    },
    short_help="Show what a bundle holds, or make its weights smaller.",
)
def command() -> None:
    """Show what a bundle holds, or make its weights smaller."""
