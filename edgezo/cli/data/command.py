"""`edgezo data`: the group."""

from __future__ import annotations

import click

from edgezo.cli.lazy_group import LazyGroup


@click.group(
    name="data",
    cls=LazyGroup,
    verbs={"check": "edgezo.cli.data.check"},
    short_help="Look at data files before tuning on them.",
)
def command() -> None:
    """Look at data files before tuning on them."""
