"""metrics.jsonl of a run: one JSON object per line for every step and every evaluation."""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from edgezo.runs.metrics_lines import metrics_lines
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.system.files import atomic_path, open_regular
from edgezo_runtime.system.typed_json import JsonShapeError, decode

FLUSH_S = 1.0

Split = Literal["valid", "test"]
When = Literal["before", "during", "after"]


@dataclass(frozen=True, slots=True)
class KeptEvaluation:
    """An evaluation of an earlier session of a run.

    Attributes:
        split: the rows it is of.
        when: before, during or after tuning.
        loss: mean over the rows, nats.
        accuracy: share of rows with the right class; None where rows have no classes.
        score: mean score of generated answers; None where none were generated.
    """

    split: Split
    when: When
    loss: float
    accuracy: float | None
    score: float | None = None


class Metrics:
    """Appends to a metrics file, with a buffer that is flushed once per second.

    Args:
        path: the file.
        step: number of steps that the run has taken. Lines of later steps, which a power cut can
            leave, are dropped, and so are all lines from the first incomplete or damaged one on.
        also: given every entry that is appended.
    Raises:
        RunFileError: the file cannot be read or written, or is a link, a pipe or a device.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        also: Callable[[Mapping[str, Any]], None] = lambda entry: None,
    ) -> None:
        self._also = also
        self._kept: dict[tuple[str, str], KeptEvaluation] = {}
        try:
            if os.path.lexists(path):
                with (
                    io.BufferedReader(open_regular(path, follow=False)) as old,
                    atomic_path(path) as temporary,
                ):
                    self._keep(old, temporary, step)
            opened = open_regular(path, "ab", follow=False)
        except OSError as error:
            raise RunFileError(
                f"{path}: cannot be used: {error.strerror}; remove it, or choose another folder"
            ) from error
        self._file = io.TextIOWrapper(io.BufferedWriter(opened), encoding="utf-8")
        self._flushed = time.monotonic()

    def find(self, split: str, when: str) -> KeptEvaluation | None:
        """The first evaluation of an earlier session on a split, before, during or after tuning."""
        return self._kept.get((split, when))

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append a line; numbers that are not finite become null."""
        self._file.write(_line(entry))
        self._also(entry)
        if time.monotonic() - self._flushed >= FLUSH_S:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush the buffer and close the file."""
        self._file.close()

    def _keep(self, old: BinaryIO, temporary: Path, step: int) -> None:
        with temporary.open("w", encoding="utf-8") as new:
            for line, entry in metrics_lines(old):
                is_step = entry["event"] == "step"
                if entry["step"] >= step if is_step else entry["step"] > step:
                    continue
                new.write(line)
                if entry["event"] == "eval":
                    values = {key: entry.get(key) for key in KeptEvaluation.__slots__}
                    try:
                        kept = decode(KeptEvaluation, values)
                    except JsonShapeError:  # incomplete: the run evaluates again
                        continue
                    self._kept.setdefault((kept.split, kept.when), kept)


def _line(entry: Mapping[str, Any]) -> str:
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in entry.items()
    }
    return json.dumps(clean, allow_nan=False) + "\n"
