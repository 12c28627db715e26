"""The runs below a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgezo.runs.run_record import RunRecord, is_run, read_run
from edgezo_runtime.errors import EdgezoError, RunFileError

DEPTH = 3
"""Folders below the given one that are searched."""


def find_runs(folder: Path) -> list[Path]:
    """Folders with runs, sorted by path: the given one, or those below it.

    Args:
        folder: where to look; links to folders are not followed.
    Raises:
        RunFileError: there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise RunFileError(f"{folder}: no such folder; name the one that holds your runs")
    return sorted(_below(folder, DEPTH))


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    if not depth:
        return
    try:
        inner = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError as error:
        raise RunFileError(f"{folder}: cannot be read: {error.strerror}") from error
    for path in inner:
        yield from _below(path, depth - 1)


def read_runs(paths: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """Runs, and why others could not be read."""
    runs: list[RunRecord] = []
    problems: list[str] = []
    for path in paths:
        try:
            runs.append(read_run(path))
        except EdgezoError as error:
            problems.append(str(error))
    return runs, problems
