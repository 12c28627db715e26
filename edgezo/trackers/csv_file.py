"""log.csv in the run's folder: a line per step and per evaluation."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from io import BufferedWriter, TextIOWrapper
from pathlib import Path

from edgezo.trackers.tracker import TrackedRun
from edgezo.trackers.values import EVALUATION_VALUES, STEP_VALUES
from edgezo_runtime.system.files import atomic_path, open_regular

FILE = "log.csv"
COLUMNS = (
    "step",
    *STEP_VALUES.values(),
    "train/rows_per_s",
    *(f"{split}/{name}" for split in ("valid", "test") for name in EVALUATION_VALUES),
)
_FLUSH_S = 1.0


class CsvFile:
    """Appends to a table; a cell is empty where a line has no such number.

    Args:
        path: the file.
        step: steps that were taken; lines of later steps are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = _kept(path, step)
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(kept)
        opened = BufferedWriter(open_regular(path, "ab", follow=False))
        self._file = TextIOWrapper(opened, encoding="utf-8", newline="")
        self._table = csv.DictWriter(self._file, COLUMNS, extrasaction="ignore")
        self._flushed = time.monotonic()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        self._table.writerow({"step": step, **values})
        if time.monotonic() - self._flushed >= _FLUSH_S:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


def load() -> None:
    """Import what is needed: nothing."""


def open_tracker(run: TrackedRun) -> CsvFile:
    """Open the table of a run."""
    return CsvFile(run.folder / FILE, run.step)


def _kept(path: Path, step: int) -> list[dict[str, str]]:
    """Lines of earlier sessions up to a step."""
    if not os.path.lexists(path):
        return []
    with path.open(encoding="utf-8", newline="", errors="replace") as file:
        lines = [line for line in csv.DictReader(file) if str(line.get("step")).isdigit()]
    own = [line for line in lines if int(line["step"]) <= step]
    return [{name: line.get(name) or "" for name in COLUMNS} for line in own]
