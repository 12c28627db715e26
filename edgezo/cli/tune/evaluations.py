"""The evaluations of a session: before, during and after tuning."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo.cli.terminal.output import note, warn
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.cli.tune.job import Job
from edgezo.cli.tune.metrics import KeptEvaluation, Metrics, Split, When
from edgezo.runs.evaluated_rows import EvaluatedRows, RowResults, read_rows
from edgezo.wording import percent
from edgezo_runtime.app.best_keeper import KeptAdapter
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import DivergedError, RunFileError
from edgezo_runtime.evaluation.evaluate import Evaluation, evaluate
from edgezo_runtime.evaluation.not_finite import why_not_finite
from edgezo_runtime.training.evaluation_times import AUTO, cost_in_steps, is_due

Float32 = npt.NDArray[np.float32]


class Evaluations:
    """Evaluates the adapter of a run, and records what it finds.

    Args:
        job: the run and its settings.
        tuner: of the run; started.
        metrics: file for evaluations.
        signals: can interrupt an evaluation.
        progress: shows how far it is.
    """

    def __init__(
        self, job: Job, tuner: Tuner, metrics: Metrics, signals: StopSignals, progress: Progress
    ) -> None:
        self._job = job
        self._tuner = tuner
        self._run = tuner.run
        self._metrics = metrics
        self._signals = signals
        self._progress = progress
        self._rows = rows_until(tuner.run.folder.rows, tuner.step_number)
        self._initial: KeptEvaluation | None = None

    def before(self) -> dict[str, Any]:
        """Results of the initial adapter on the rows for validation; maybe of an earlier session.

        Raises:
            DivergedError: the loss is not finite.
        """
        known = None if self._tuner.keeper.forgotten else self._metrics.find("valid", "before")
        if known is None or "valid" not in self._job.sets:
            initial = self._run.trajectory.initial()
            known = self._evaluate("valid", "before", 0, self._run.rates.seconds, initial)
        self._initial = known
        return _named("before", known)

    def during(self) -> None:
        """Evaluate on the rows for validation if that is due.

        Raises:
            DivergedError: the loss is not finite.
        """
        run, keeper = self._run, self._tuner.keeper
        if keeper.rows is None or run.done or not run.step_number:
            return
        every, amount, cost = self._job.inputs.eval_every_s, run.state.elapsed_s, keeper.cost_s
        if every == AUTO and not run.trajectory.settled.max_time_s:
            amount, cost = run.step_number, cost_in_steps(run, keeper.rows)
        if is_due(every, (run.fraction_done, amount), keeper.last, cost):
            found = self._evaluate_state("during")
            if found is not None:
                note(f"after {run.step_number} steps, on {len(keeper.rows)} rows: {_words(found)}")

    def after(self) -> dict[str, Any]:
        """Results of the last adapter on the rows for validation; after no step those before.

        Raises:
            DivergedError: the loss is not finite.
        """
        if self._initial is None or self._tuner.step_number:
            return _named("after", self._evaluate_state("after"))
        if (rows := self._rows.sets.get("valid", {}).get("before")) is not None:
            self._rows = self._rows.plus("valid", "after", rows)
            write_rows(self._rows, self._run.folder.rows)
        return _named("after", self._record("after", 0, 0.0, self._initial))

    def test(self, kept: KeptAdapter) -> dict[str, Any]:
        """Results of the adapter that is handed out on the rows for the test.

        Raises:
            DivergedError: the loss is not finite.
        """
        seconds = self._run.state.elapsed_s
        return _named("test", self._evaluate("test", "after", kept.step, seconds, kept.tensors))

    def _evaluate_state(self, when: When) -> KeptEvaluation | None:
        """Evaluate the state between two steps on the rows for validation."""
        self._run.sync()
        run = self._run
        return self._evaluate(
            "valid", when, run.step_number, run.state.elapsed_s, self._tuner.adapter()
        )

    def _evaluate(
        self, split: Split, when: When, step: int, seconds: float, params: Mapping[str, Float32]
    ) -> KeptEvaluation | None:
        """Evaluate trainables after a step on a split; None if there are no such rows."""
        examples = self._job.sets.get(split)
        if examples is None:
            return None
        what, started = f"evaluating {when} tuning, {split} rows", time.monotonic()
        show = self._progress.count(what)

        def tell(done: int, total: int) -> None:
            self._signals.check()
            show(done, total)

        size = self._job.inputs.eval_batch_size
        with self._run.engine.interruptible(self._signals.check):
            found = evaluate(self._run.engine, params, examples, size, tell, scope=self._run.scope)
        self._progress.end()
        check_loss(found, what, self._job.bundle, params)
        score = self._score(split, when, params)
        took_s = time.monotonic() - started
        if split == "valid":
            self._tuner.keeper.note(step, seconds, params, found, answers=score, took_s=took_s)
        self._note_rows(split, when, step, found)
        kept = KeptEvaluation(split, when, found.loss, found.accuracy, score)
        return self._record(when, step, seconds, kept)

    def _record(
        self, when: When, step: int, seconds: float, found: KeptEvaluation
    ) -> KeptEvaluation:
        """Write an evaluation to the metrics, and return it."""
        entry = {
            "event": "eval",
            "split": found.split,
            "when": when,
            "step": step,
            "seconds": round(seconds, 4) if step else 0.0,
            "rows": len(self._job.sets[found.split]),
            "loss": found.loss,
            "accuracy": found.accuracy,
            **({} if found.score is None else {"score": found.score}),
        }
        self._metrics.write(entry)
        return found

    def _note_rows(self, split: Split, when: When, step: int, found: Evaluation) -> None:
        """Write the results of single rows, if they are those before, or of the adapter kept."""
        best = self._tuner.keeper.best if split == "valid" else None
        kept = when == "after" if best is None else best.step == step
        if when == "before" or kept:
            results = RowResults.of(step, self._job.sets[split], found)
            self._rows = self._rows.plus(split, "before" if when == "before" else "after", results)
            write_rows(self._rows, self._run.folder.rows)

    def _score(self, split: str, when: str, params: Mapping[str, Float32]) -> float | None:
        """Mean score of the answers to a split's questions; None if none are generated."""
        objective, questions = self._run.probes.objective, self._job.opened.questions.get(split)
        if questions is None or not objective.has_answers:
            return None
        show = self._progress.count(f"answering {when} tuning, {split} rows")
        with self._run.engine.interruptible(self._signals.check):
            score = objective.mean_score(questions, params, show)
        self._progress.end()
        return score


def rows_until(path: Path, step: int) -> EvaluatedRows:
    """Results of single rows of earlier sessions; empty, with a warning, if the file is damaged.

    Args:
        path: of the file.
        step: steps that the run has taken; later results are left out.
    """
    try:
        return read_rows(path).until(step)
    except RunFileError as error:
        warn(f"{error}; the run goes on, and the file is begun again")
        return EvaluatedRows()


def write_rows(rows: EvaluatedRows, path: Path) -> None:
    """Write results of single rows; a warning if that fails, because only reports need them."""
    try:
        rows.write(path)
    except RunFileError as error:
        warn(f"{error}; the run goes on, and its reports lack single rows")


def check_loss(found: Evaluation, what: str, bundle: Bundle, params: Mapping[str, Float32]) -> None:
    """Refuse a loss that is not finite.

    Args:
        found: the evaluation.
        what: was evaluated, for the message.
        bundle: the model that was evaluated.
        params: its trainables.
    Raises:
        DivergedError: the loss is not finite; the message says why.
    """
    if not math.isfinite(found.loss):
        reason = why_not_finite(bundle, params)
        raise DivergedError(f"{what}: the mean loss is {found.loss}: {reason}")


def _named(when: str, found: KeptEvaluation | None) -> dict[str, Any]:
    names = () if found is None else ("loss", "accuracy", "score")
    return {f"{name}_{when}": getattr(found, name) for name in names}


def _words(found: KeptEvaluation) -> str:
    """An evaluation, for people."""
    parts = [f"loss {found.loss:.4f}"]
    parts += [] if found.accuracy is None else [f"accuracy {percent(found.accuracy)}"]
    parts += [] if found.score is None else [f"score {found.score:.4f}"]
    return ", ".join(parts)
