"""Results of a long comparison, one JSON object per line, so that it can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.curves import Point

DONE, MISSING, FAILED = "done", "missing", "failed"
"""What "status" of a result may be: there is nothing to run it with; it ended with an error."""


class ResultFile:
    """Appends results; a later result of the same run replaces an earlier one.

    Args:
        path: the file; made when the first result is added.
        keys: fields that identify the run of a result.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path = path
        self._keys = tuple(keys)
        self._found: dict[tuple[object, ...], dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self._take(json.loads(line))
                except ValueError:
                    break  # the last line, torn by a power cut

    def add(self, result: Mapping[str, Any]) -> None:
        """Add a result."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        self._take(dict(result))

    def is_done(self, **run: object) -> bool:
        """Has a run ended without an error?"""
        found = self._found.get(tuple(run[key] for key in self._keys))
        return found is not None and found["status"] == DONE

    def refuse_used(self, *, resume: bool) -> None:
        """End the program if there are results and it was not told to resume."""
        if self._found and not resume:
            raise SystemExit(
                f"{self.path}: holds results; go on with --resume, show them with --only-report, "
                f"or choose another folder with --output"
            )

    def all(self) -> list[dict[str, Any]]:
        """The last result of every run."""
        return list(self._found.values())

    def _take(self, result: dict[str, Any]) -> None:
        self._found[tuple(result[key] for key in self._keys)] = result


def points_of(result: Mapping[str, Any]) -> list[Point]:
    """The curve of a result."""
    return [Point(*values) for values in result["points"]]
