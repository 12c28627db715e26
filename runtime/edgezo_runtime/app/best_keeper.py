"""Keeps the best adapter of a run, by evaluations on its rows for validation.

The tensors lie in the run's folder, not in memory. They are written before the record that names
their step; if a crash comes between the two, or if the file is lost, the journal has them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.evaluation.evaluate import Evaluation
from edgezo_runtime.journal.evaluation_record import (
    EvaluationRecord,
    EvaluationRecords,
    read_evaluations,
)
from edgezo_runtime.journal.snapshot import Snapshot, load_snapshot, save_snapshot
from edgezo_runtime.methods.run_length import fraction_done
from edgezo_runtime.training.best_adapter import best_of, initial_is_best, validation_score
from edgezo_runtime.training.replay import replay
from edgezo_runtime.training.run import Run

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class KeptAdapter:
    """The adapter that a run hands out.

    Attributes:
        step: steps that it had taken.
        tensors: all trainables by name.
        evaluation: its evaluation; None if it was not evaluated.
        initial_is_best: was the initial adapter better than all that were evaluated?
        rebuilt: why the tensors were rebuilt from the journal; empty if they were not.
    """

    step: int
    tensors: dict[str, Float32]
    evaluation: EvaluationRecord | None
    initial_is_best: bool
    rebuilt: str = ""


class BestKeeper:
    """Records evaluations of a run, and keeps the best adapter. Any thread may call it.

    Args:
        run: the run.
        rows: its rows for validation; None if it has none.
        questions: the same as questions, if answers are scored.

    Attributes:
        rows: the rows for validation.
        questions: the same as questions.
        forgotten: were there evaluations on other rows, which no longer count?
    """

    def __init__(
        self, run: Run, rows: ExampleSet | None, questions: QuestionSet | None = None
    ) -> None:
        self._run = run
        self.rows = rows
        self.questions = questions
        self.forgotten = False
        self._lock = threading.Lock()
        self._found = EvaluationRecords("", "")

    def open(self) -> None:
        """Read the evaluations of a run that was resumed, or begin with none.

        Raises:
            RunFileError: their file is damaged, or of another run; the run is closed.
        """
        try:
            self._open()
        except BaseException:
            self._run.close()
            raise

    def _open(self) -> None:
        run = self._run
        rows = "" if self.rows is None else self.rows.tokens_sha256()
        self._found = EvaluationRecords(run.log.digest(), rows)
        found = read_evaluations(run.folder.evaluations)
        if found is None:
            return
        if found.run != self._found.run:
            raise RunFileError(
                f"{run.folder.evaluations}: its evaluations are of another run; remove it"
            )
        self.forgotten = self.rows is not None and found.rows != rows
        if self.rows is None or not self.forgotten:
            self._found = found.until(run.step_number)

    # --- evaluations ---

    @property
    def records(self) -> Sequence[EvaluationRecord]:
        """The evaluations so far, by step."""
        return self._found.records

    @property
    def cost_s(self) -> float:
        """Seconds of the longest evaluation; 0 before the first."""
        return max((record.took_s for record in self.records), default=0.0)

    @property
    def last(self) -> tuple[float, float]:
        """Fraction of the run done, and seconds of tuning, at the last evaluation."""
        run, rates = self._run, self._run.rates
        if not self.records:
            return 0.0, rates.seconds
        last = self.records[-1]
        settled = run.trajectory.layout.settled(len(run.examples))
        return fraction_done(settled, last.step, last.seconds, rates.seconds), last.seconds

    def note(
        self,
        step: int,
        seconds: float,
        params: Mapping[str, Float32],
        found: Evaluation,
        *,
        answers: float | None = None,
        took_s: float = 0.0,
    ) -> None:
        """Record an evaluation on the rows for validation; the journal has its step on the disk.

        One whose loss is not finite is not recorded: it is no candidate.

        Args:
            step: steps that had been taken.
            seconds: tuning time by then.
            params: the adapter that was evaluated.
            found: losses and classes.
            answers: mean score of generated answers; None where none are generated.
            took_s: seconds of the evaluation.
        Raises:
            RunFileError: it cannot be written.
        """
        if not math.isfinite(found.loss):
            return
        folder = self._run.folder
        score = validation_score(self._run.probes.objective, found, answers)
        record = EvaluationRecord(step, seconds, found.loss, found.accuracy, score, took_s)
        with self._lock:
            records = self._found.plus(record)
            if self._run.config.keep == "best" and best_of(records.records) is record:
                digest = self._found.run
                save_snapshot(folder.best, Snapshot(dict(params), {}, step, digest))
            records.write(folder.evaluations)
            self._found = records

    # --- the adapter ---

    @property
    def best(self) -> EvaluationRecord | None:
        """The evaluation of the adapter that is kept; None if the last one is."""
        by_rows = self.rows is not None and self._run.config.keep == "best"
        return best_of(self.records) if by_rows else None

    def kept(self) -> KeptAdapter:
        """The adapter to hand out: the best of those evaluated, or the last one.

        Raises:
            RunFileError: the file of the best one is lost, and the journal damaged.
        """
        run, best = self._run, self.best
        with run.lock:
            step = run.step_number
            if best is None or best.step == step:
                last = next((own for own in self.records if own.step == step), None)
                tensors = run.state.adapter()
                return KeptAdapter(step, tensors, last, initial_is_best(self.records))
        tensors, rebuilt = self._stored(best.step)
        return KeptAdapter(best.step, tensors, best, initial_is_best(self.records), rebuilt)

    def hand_out(self) -> KeptAdapter:
        """The adapter of `kept`; a replay will make the same one."""
        kept = self.kept()
        self.handed_out(kept.step)
        return kept

    def handed_out(self, step: int) -> None:
        """Record the step of the adapter that was handed out, for a replay.

        Raises:
            RunFileError: it cannot be written.
        """
        with self._lock:
            if self._found.kept_step != step:
                self._found = replace(self._found, kept_step=step)
                self._found.write(self._run.folder.evaluations)

    def _stored(self, step: int) -> tuple[dict[str, Float32], str]:
        """The adapter after a step: from its file, else from the journal; and why the latter."""
        run, path = self._run, self._run.folder.best
        try:
            like = Snapshot(run.state.theta, {}, 0, "")
            found = load_snapshot(path, self._found.run, like)
            if found.step == step:
                return dict(found.theta), ""
            reason = f"{path} has step {found.step}"
        except RunFileError as error:
            reason = str(error)
        run.sync()
        found_again = replay(run.engine.bundle, run.folder.journal, step=step).kept
        with self._lock:
            save_snapshot(path, Snapshot(found_again, {}, step, self._found.run))
        return found_again, reason
