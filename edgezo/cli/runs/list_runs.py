"""`edgezo runs list`: a table of the runs below a folder."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edgezo.cli.terminal.output import harmless, json_option, print_result, warn

if TYPE_CHECKING:
    from edgezo.runs.run_record import RunRecord

Key = Literal["written", "run", "model", "data", "method", "before", "after", "time", "peak"]
KEYS: tuple[Key, ...] = (
    "written", "run", "model", "data", "method", "before", "after", "time", "peak",
)  # fmt: skip

_SHORTEST = 8
"""Characters to which a cell is cut on a narrow terminal, at least."""

_CUT = (1, 2, 0)
"""Columns that are cut there, in this order: model, data, run."""

_LEFT_OUT = (3, 1, 8, 7, 2, 6, 4)
"""Columns that a still narrower terminal lacks, in this order: method, model, peak, time, data,
test, before. 'edgezo runs show' has them all."""


@click.command(name="list", short_help="List the runs below a folder.")
@click.argument("folder", required=False, type=click.Path(path_type=Path), default=Path("runs"))
@click.option(
    "--sort",
    type=click.Choice(KEYS),
    default="written",
    show_default=True,
    help="order of the runs; written is the time of their last step",
)
@click.option("--reverse", is_flag=True, help="the last run first")
@json_option
def command(folder: Path, sort: Key, reverse: bool, as_json: bool) -> None:
    """List the runs below FOLDER, by default the folder runs.

    Scores are accuracies, or those of the objective, on the rows for validation before and after
    tuning, else losses. A run without a receipt is unfinished: it was killed, and can be resumed.
    """
    from edgezo.report.comparison import HEADER, comparison_row, summary
    from edgezo.runs.run_list import find_runs, read_runs

    runs, problems = read_runs(find_runs(folder))
    for problem in problems:
        warn(problem)
    runs.sort(key=sort_key(sort), reverse=reverse)
    rows = [tuple(map(harmless, comparison_row(run))) for run in runs]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = columns([HEADER, *rows], width) if rows else [f"no runs below {folder}"]
    result = {"folder": str(folder), "runs": [summary(run) for run in runs], "damaged": problems}
    print_result(result, lines, as_json)


def sort_key(key: Key) -> Callable[[RunRecord], tuple[float, str]]:
    """What runs are sorted by; what is not known comes first."""

    def number(value: float | None) -> float:
        return -math.inf if value is None else float(value)

    def score(run: RunRecord, name: str) -> float:
        found = run.before if name == "before" else run.after
        if found is None:
            return -math.inf
        told = found.accuracy if found.score is None else found.score
        return -found.loss if told is None else told

    def of(run: RunRecord) -> tuple[float, str]:
        match key:
            case "written":
                return run.written, run.name
            case "before" | "after":
                return score(run, key), run.name
            case "time":
                return run.seconds, run.name
            case "peak":
                return number(run.peak_bytes), run.name
            case "run":
                return 0.0, run.name
            case _:
                return 0.0, str(getattr(run, key))

    return of


def columns(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Lines of aligned columns; the first row is their heading.

    Args:
        rows: cells.
        width: most characters of a line, if the columns can be cut so far; None cuts none. Columns
            of runs are left out where that is not enough.
    """
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for index in _CUT if width is not None else ():
        over = sum(sizes) + 2 * (len(sizes) - 1) - (width or 0)
        sizes[index] = max(min(sizes[index], _SHORTEST), sizes[index] - max(0, over))
    shown = list(range(len(sizes)))
    for index in _LEFT_OUT if width is not None else ():
        if index in shown and sum(sizes[own] + 2 for own in shown) - 2 > (width or 0):
            shown.remove(index)
    return ["  ".join(_cell(row[own], sizes[own]) for own in shown).rstrip() for row in rows]


def _cell(text: str, size: int) -> str:
    return text.ljust(size) if len(text) <= size else text[: size - 2] + ".."
