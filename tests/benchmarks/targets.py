"""Tables and targets of a benchmark, and its exit code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.children import ROOT

DATA = ROOT.parent / "shared" / "data"
"""Where the task data is looked for: <task>/train.jsonl, validation.jsonl, test.jsonl."""


@dataclass(frozen=True, slots=True)
class Target:
    """A number and its bound."""

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Is the value on the right side of the bound?"""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def line(self) -> str:
        """One line for people."""
        sign = ">=" if self.at_least else "<="
        verdict = "met" if self.is_met else "MISSED"
        return f"{verdict:6}  {self.name} {self.value:.4g} (target {sign} {self.bound:g})"


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns as wide as their cells; numbers have three digits, aligned to the right."""
    lines = [list(head), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        print("  ".join(cells))


def print_targets(targets: Sequence[Target]) -> int:
    """Print every target.

    Returns:
        The exit code: 0 when all are met.
    """
    for target in targets:
        print(target.line())
    return int(not all(target.is_met for target in targets))


def missing_data(files: Sequence[Path]) -> bool:
    """Say that a benchmark is skipped when one of its files is not there."""
    for file in files:
        if not file.is_file():
            print(f"skipped: {file} is not there; name the folder of the task data with --data")
            return True
    return False


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Command line of a benchmark; its docstring is the help."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _text(cell: object) -> str:
    return (
        f"{cell:.3g}"
        if isinstance(cell, float) and abs(cell) < 1000
        else (f"{cell:.0f}" if isinstance(cell, float) else str(cell))
    )
