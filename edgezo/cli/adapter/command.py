"""`edgezo adapter`: adapters for and from other programs."""

from __future__ import annotations

import click

from edgezo.cli.lazy_group import LazyGroup


@click.group(
    name="adapter",
    cls=LazyGroup,
    verbs={
        "export": "edgezo.cli.adapter.export",
        "import": "edgezo.cli.adapter.import_peft",
    },
    short_help="Export adapters to other programs, or import them from PEFT.",
)
def command() -> None:
    """Export adapters to other programs, or import them from PEFT."""
