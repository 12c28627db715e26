"""A command whose help lists its options under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

OptionGroups = Mapping[str, Sequence[str]]
"""Heading -> names of settings, in the order of the help."""


class GroupedCommand(click.Command):
    """A command with headings in its help; options without one come last.

    Args:
        groups: the headings.
    """

    def __init__(self, *args: Any, groups: OptionGroups, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        records = {
            str(param.name): record
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx))
        }
        sections = {
            heading: [records.pop(name) for name in names if name in records]
            for heading, names in self.groups.items()
        }
        for heading, rows in {**sections, "Other options": list(records.values())}.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
