"""`edgezo methods`: the methods of tuning, what they cost and where they are from."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from edgezo.cli.settings.options import KeysOf, flag_name, flat_fields, help_text
from edgezo.cli.terminal.output import json_option, print_result, table
from edgezo_runtime.config import MethodOptions, TuneConfig

if TYPE_CHECKING:
    from edgezo_runtime.methods.method import Method, Published

WIDTH = 100
"""Columns of the table."""

_COLUMNS = {"method": 16, "evaluations": 12, "state": 9, "paper": 20}
"""Widths; the summary takes the rest."""

_NAMES = 11
"""Width of the first column where one method is shown."""

_HEAD = (
    "Evaluations are those of the batch, per step. State is in float32 arrays of the size of the "
    "trainables. 'edgezo methods NAME' shows the options of one method."
)


@click.command(
    name="methods", short_help="List the methods of tuning, or show one with its options."
)
@click.argument(
    "name",
    required=False,
    metavar="[NAME]",
    type=KeysOf("edgezo_runtime.methods.catalogue", "METHODS"),
)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the methods that --method takes; with NAME, show the options of one method.

    The options of a method are flags of 'edgezo tune' and 'edgezo plan'.
    """
    from edgezo_runtime.methods.catalogue import METHODS

    if name is None:
        described = [describe(each, method) for each, method in METHODS.items()]
        print_result({"methods": described}, _list_lines(described), as_json)
    else:
        described_one = describe(name, METHODS[name])
        print_result(described_one, _lines(described_one), as_json)


def describe(name: str, method: Method) -> dict[str, Any]:
    """A method, for machines."""
    return {
        "name": name,
        "summary": method.summary,
        "paper": method.paper,
        "evaluations": method.evaluations,
        "state": method.state,
        "scheme": method.scheme,
        "any_rule": method.any_rule,
        "options": method.options(),
        "settings": _changed(method),
        "published": _rates(method.published),
    }


def _changed(method: Method) -> dict[str, object]:
    """Settings in which the method differs from the defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(TuneConfig)}
    return {name: value for name, value in method.settings.items() if value != defaults[name]}


def _rates(published: Published | None) -> dict[str, Any] | None:
    """Published rates, as they are and converted to adapters whose alpha / rank is 1."""
    if published is None:
        return None
    lr, eps = published.converted(1.0)
    return {**dataclasses.asdict(published), "lr_at_scale_1": lr, "eps_at_scale_1": eps}


def _list_lines(described: Sequence[dict[str, Any]]) -> list[str]:
    """The table; long cells take several lines."""
    lines = [*textwrap.wrap(_HEAD, WIDTH), "", *_cells([*_COLUMNS, "summary"])]
    for entry in described:
        keys = ("name", "evaluations", "state", "paper", "summary")
        lines += _cells([entry[key] for key in keys])
    return lines


def _cells(texts: Sequence[str]) -> list[str]:
    """One row of the table."""
    widths = list(_COLUMNS.values())
    widths.append(WIDTH - sum(widths) - 2 * len(widths))
    columns = [_wrap(text, width) for text, width in zip(texts, widths, strict=True)]
    return [
        "  ".join(
            (column[row] if row < len(column) else "").ljust(width)
            for column, width in zip(columns, widths, strict=True)
        ).rstrip()
        for row in range(max(map(len, columns)))
    ]


def _wrap(text: str, width: int) -> list[str]:
    """Break a text between words; names and flags stay whole."""
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _lines(entry: dict[str, Any]) -> list[str]:
    """A method, for people."""
    scheme = entry["scheme"]
    rows = [
        ("method", entry["name"]),
        ("", entry["summary"]),
        ("paper", entry["paper"]),
        ("cost", f"evaluations of the batch per step: {entry['evaluations']}"),
        ("state", f"float32 arrays of the size of the trainables: {entry['state']}"),
        ("bundle", f"one of 'edgezo export --trainable {scheme}'" if scheme else "any"),
        ("rule", "its own; --rule replaces it" if entry["any_rule"] else "its own"),
        ("published", _rates_words(entry["published"])),
        ("settings", _settings_words(entry["settings"])),
    ]
    options = [
        (f"{flag_name(name)} {value}", _option_help(name))
        for name, value in entry["options"].items()
    ]
    wrapped = [
        (name if number == 0 else "", line)
        for name, text in rows
        for number, line in enumerate(_wrap(text, WIDTH - _NAMES))
    ]
    return table(wrapped) + (
        ["", "options and their defaults", *table(options)] if options else ["", "no options"]
    )


def _rates_words(rates: dict[str, Any] | None) -> str:
    if rates is None:
        return "no rates; --lr auto and --eps auto measure them"
    return (
        f"lr {rates['lr']:g}, eps {rates['eps']:g} for {rates['trainables']}; for LoRA with alpha "
        f"= rank lr {rates['lr_at_scale_1']:g}, eps {rates['eps_at_scale_1']:g}"
    )


def _settings_words(settings: dict[str, object]) -> str:
    """The settings as flags."""
    return " ".join(_flag(name, value) for name, value in settings.items()) or "the defaults"


def _flag(name: str, value: object) -> str:
    if isinstance(value, bool):
        return flag_name(name) if value else f"--no-{flag_name(name)[2:]}"
    return (
        f"{flag_name(name)} {value:g}" if isinstance(value, float) else f"{flag_name(name)} {value}"
    )


def _option_help(name: str) -> str:
    return next(help_text(field) for field in flat_fields(MethodOptions) if field.name == name)
