"""The evaluations of a run on its rows for validation: evaluations.json in the run's folder.

The file is written atomically after every evaluation, once the journal has the steps before it on
the disk. So a run that resumes knows which states were evaluated, and which of them was the best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.versioned_file import read_versioned, write_versioned

VERSION = 1


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """An evaluation of the state after some steps.

    Attributes:
        step: steps that had been taken; 0 for the initial adapter.
        seconds: tuning time of the run by then.
        loss: mean over the rows, nats.
        accuracy: share of rows with the right class; None where rows have no classes.
        score: what the objective maximizes; None where it is the loss.
        took_s: seconds of the evaluation.
    """

    step: int
    seconds: float
    loss: float
    accuracy: float | None = None
    score: float | None = None
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EvaluationRecords:
    """The evaluations of a run.

    Attributes:
        run: digest of the inputs of the run; see `RunHeader.digest`.
        rows: SHA-256 of the tokens of the rows.
        records: one per step that was evaluated, ascending.
        kept_step: step of the adapter that was handed out last; None if none was.
        version: of the format.
    """

    run: str
    rows: str
    records: tuple[EvaluationRecord, ...] = ()
    kept_step: int | None = None
    version: int = VERSION

    def plus(self, record: EvaluationRecord) -> EvaluationRecords:
        """The same with another record, which replaces one of the same step."""
        others = [own for own in self.records if own.step != record.step]
        return replace(self, records=tuple(sorted([*others, record], key=lambda own: own.step)))

    def until(self, step: int) -> EvaluationRecords:
        """The same without records of later steps, which a lost journal can leave."""
        kept = None if self.kept_step is None or self.kept_step > step else self.kept_step
        records = tuple(own for own in self.records if own.step <= step)
        return replace(self, records=records, kept_step=kept)

    def write(self, path: Path) -> None:
        """Write the file, atomically.

        Raises:
            RunFileError: the disk did not take it; an older file is as it was.
        """
        write_versioned(path, self, indent=1)


def read_evaluations(path: Path) -> EvaluationRecords | None:
    """Read the evaluations of a run; None if there is no such file.

    Raises:
        RunFileError: the file is damaged, or of another version.
    """
    remedy = "remove it; the run then forgets its earlier evaluations"
    what = "the evaluations of a run"
    found = read_versioned(path, EvaluationRecords, VERSION, what=what, remedy=remedy)
    if found is None:
        return None
    steps = [record.step for record in found.records]
    numbers = [value for own in found.records for value in (own.seconds, own.took_s)]
    damaged = steps != sorted(set(steps)) or min([0, found.kept_step or 0, *steps]) < 0
    if damaged or not all(0 <= value < math.inf for value in numbers):
        raise RunFileError(f"{path}: has records that no run writes; {remedy}")
    return found
