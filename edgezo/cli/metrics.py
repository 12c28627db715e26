"""metrics.jsonl of a run: one object a line for every step and every evaluation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from edgezo_runtime.files import atomic_path

FLUSH_S = 1.0


class Metrics:
    """Appends to a metrics file; buffered, on the disk's way once a second.

    Args:
        path: the file.
        step: steps the run has behind it; lines of later ones, which a power cut can leave, are
            dropped, as is a torn last line.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._evaluations: list[dict[str, Any]] = []
        if path.exists():
            with atomic_path(path) as temporary:
                self._keep(path, temporary, step)
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._flushed = time.monotonic()

    def find(self, **wanted: object) -> dict[str, Any] | None:
        """The first evaluation of an earlier part of the run that has these values."""
        for entry in self._evaluations:
            if all(entry.get(key) == value for key, value in wanted.items()):
                return entry
        return None

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add a line; numbers that are not finite become null."""
        self._file.write(_line(entry))
        if time.monotonic() - self._flushed >= FLUSH_S:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write out what is buffered."""
        self._file.close()

    def _keep(self, path: Path, temporary: Path, step: int) -> None:
        with path.open(encoding="utf-8", errors="replace") as old, temporary.open("w") as new:
            for line in old:
                try:
                    entry = json.loads(line)
                    is_step = entry["event"] == "step"
                    late = entry["step"] >= step if is_step else entry["step"] > step
                except (ValueError, TypeError, KeyError, RecursionError):
                    break  # torn by a power cut
                if late:
                    continue
                new.write(_line(entry))
                if not is_step:
                    self._evaluations.append(entry)


def _line(entry: Mapping[str, Any]) -> str:
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in entry.items()
    }
    return json.dumps(clean, allow_nan=False) + "\n"
