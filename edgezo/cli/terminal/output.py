"""Output of commands: the result on stdout, notes and warnings on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import click

from edgezo.cli.settings.flags import with_flags
from edgezo_runtime.errors import printable

_LONGEST_LINE = 4000

_SLOWEST = 0.001
"""Slowest rate per second that is shown as a number."""

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
    click.echo(json.dumps(result, ensure_ascii=False) if as_json else "\n".join(lines))


def note(text: str) -> None:
    """Print a note on stderr."""
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


def percent(share: float | None) -> str:
    """A share as a percentage: "87.5 %"."""
    return "-" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as a short text: "40ms", "8s", "4m10s", "1h05m", "3d04h".

    Negative ones are "0s": no clock of ours goes back. What is no number, or no finite one, is "-".
    """
    if not math.isfinite(seconds):
        return "-"
    if 0 < seconds < 1 and (milliseconds := math.ceil(seconds * 1000)) < 1000:
        return f"{milliseconds}ms"
    total = max(0, round(seconds))
    if total < 60:
        return f"{total}s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"


def rate(per_second: float | None) -> str:
    """A rate per second with two significant digits: ".7", "1.4", "12", "340", "-" if unknown."""
    if per_second is None or not math.isfinite(per_second) or per_second < 0:
        return "-"
    if per_second and per_second < _SLOWEST:
        return f"<{_SLOWEST}".replace("0.", ".")
    rounded = significant(per_second)
    text = f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.6f}".rstrip("0").rstrip(".")
    return text.removeprefix("0") or "0"


def significant(value: float, digits: int = 2) -> float:
    """A finite number, rounded to some significant digits."""
    return float(f"{value:.{digits}g}")
