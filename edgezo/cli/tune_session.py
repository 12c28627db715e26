"""One sitting of a run: evaluate, tune, evaluate, hand out adapter and receipt."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo.cli.metrics import KeptEvaluation, Metrics, Split, When
from edgezo.cli.output import duration, note, percent, table, warn
from edgezo.cli.progress import Progress
from edgezo.cli.stop_signals import StopSignals
from edgezo.cli.tune_job import CREATED_BY, Job
from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.app.events import Event, PauseEvent, ResumeEvent
from edgezo_runtime.app.tuner import StepReport, Tuner
from edgezo_runtime.data.scope import invocation
from edgezo_runtime.errors import (
    BudgetStopError,
    DivergedError,
    InterruptedRunError,
    RewardError,
)
from edgezo_runtime.evaluation.evaluate import Evaluation, evaluate
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.system.files import atomic_write
from edgezo_runtime.system.memory import peak_rss_bytes, rss_bytes
from edgezo_runtime.system.sizes import format_size

Float32 = npt.NDArray[np.float32]

FLAT_STEPS = 10
"""Steps from the beginning whose scores are all alike that are worth a word."""


class Session:
    """One sitting of a run."""

    def __init__(self, job: Job, tuner: Tuner, metrics: Metrics, signals: StopSignals) -> None:
        self._job = job
        self._tuner = tuner
        self._metrics = metrics
        self._signals = signals
        self._progress = Progress()
        self._rows = 0
        self._seconds = 0.0
        self._told = 0
        self._events: list[str] = []
        self._flat = job.config.objective != "loss"
        tuner.subscribe(_tell_pause)

    def run(self, run: RunFolder) -> dict[str, Any]:
        """Evaluate, tune, evaluate, write adapter and receipt; the receipt is the result."""
        result: dict[str, Any] = {}
        failure = self._until_stopped(self._tuning, result)
        if isinstance(failure, BudgetStopError):
            self._tuner.engine.give_back()
            if self._tuner.closed:
                self._tell_reliefs(self._tuner.step_number)
                raise failure
        steps = self._tuner.step_number
        self._tell_reliefs(steps)
        self._tuner.snapshot()
        adapter = make_adapter(
            run.adapter,
            self._job.bundle,
            self._tuner.adapter(),
            steps=steps,
            created_by=CREATED_BY,
            scope=self._tuner.scope,
            invocation=invocation(self._tuner.examples),
        )
        digest = adapter.save(run.adapter)
        if failure is None and not self._signals.requested:
            failure = self._until_stopped(self._closing, result)
            self._tell_reliefs(steps)
        result["status"] = "interrupted" if self._signals.requested else "done"
        if failure is not None:
            kinds = {DivergedError: "diverged", RewardError: "reward-failed"}
            found = [status for kind, status in kinds.items() if isinstance(failure, kind)]
            result |= {"status": (*found, "out-of-memory")[0], "error": str(failure)}
        receipt = self._receipt(run, result, digest)
        text = json.dumps(receipt, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        atomic_write(run.receipt, text.encode())
        if failure is not None:
            further = ""
            if isinstance(failure, RewardError):  # mended, it is another one
                further = (
                    f"; a mended reward goes on from it in another run, by --adapter {run.path}"
                )
            raise type(failure)(
                f"{failure}; the state after {steps} steps is saved in {run.path}{further}"
            ) from failure
        return receipt

    def _until_stopped(
        self, work: Callable[[dict[str, Any]], None], result: dict[str, Any]
    ) -> DivergedError | BudgetStopError | RewardError | None:
        """Do something that a signal, a loss that is not finite, want of memory or a reward that
        fails can end."""
        try:
            work(result)
        except (DivergedError, BudgetStopError, RewardError) as error:
            return error
        except MemoryError as error:
            return BudgetStopError(f"memory is short: {str(error) or 'it was refused'}")
        except InterruptedRunError:
            pass
        finally:
            self._progress.end()
        return None

    def _tuning(self, result: dict[str, Any]) -> None:
        if self._tuner.rates.words:
            self._progress.end()
            print(f"measured {self._tuner.rates.words}", file=sys.stderr)
        result |= _named("before", self._evaluate("valid", "before"))
        self._steps()

    def _closing(self, result: dict[str, Any]) -> None:
        result |= _named("after", self._evaluate("valid", "after"))
        result |= _named("test", self._evaluate("test", "after"))

    def _steps(self) -> None:
        every = self._job.inputs.eval_every_s
        due = self._next_evaluation(every)
        for report in self._tuner:
            self._rows += report.rows
            self._seconds += report.elapsed_s
            self._metrics.write(
                {
                    "event": "step",
                    "step": report.step,
                    "loss": report.loss,
                    "projected_grad": report.projected_grad,
                    "lr": report.lr,
                    "blocks": list(report.blocks),
                    "rows": report.rows,
                    "tokens": report.tokens,
                    "elapsed_s": round(report.elapsed_s, 4),
                }
            )
            self._tell_reliefs(report.step)
            self._tell_events(report)
            if self._progress.due():
                self._progress.update(self._live_line(report))
            if self._tuner.elapsed_s >= due and not self._tuner.done:
                self._evaluate("valid", "during")
                due = self._next_evaluation(every)

    def _next_evaluation(self, every: float) -> float:
        """Seconds of tuning after which rows are evaluated again: multiples of `every`."""
        return every * (self._tuner.elapsed_s // every + 1) if every else math.inf

    def _tell_events(self, report: StepReport) -> None:
        """Say what the guard noticed in a step, and when nothing has been learned of the first."""
        found = list(report.events)
        self._flat = self._flat and not report.projected_grad
        if self._flat and report.step + 1 == FLAT_STEPS:
            found.append(
                f"step {FLAT_STEPS}: all probes have scored alike so far, so nothing was learned; "
                f"give a larger --eps or --batch-size, or a score that tells more texts apart"
            )
        for text in found:
            self._progress.end()
            warn(text)
            self._events.append(text)
            self._metrics.write({"event": "divergence", "step": report.step, "text": text})

    def _tell_reliefs(self, step: int) -> None:
        """Say what the engine did since the last step because memory was short."""
        reliefs = self._tuner.engine.reliefs
        for text in reliefs[self._told :]:
            self._progress.end()
            warn(text)
            self._metrics.write({"event": "pressure", "step": step, "relief": text})
        self._told = len(reliefs)

    def _live_line(self, report: StepReport) -> str:
        budget = self._job.budget
        memory = [rss_bytes(), peak_rss_bytes(), budget]
        done = self._tuner.fraction_done
        left = self._tuner.elapsed_s * (1 - done) / done if done else 0.0
        return (
            f"step {report.step + 1}  loss {report.loss:.4f}  "
            f"{self._rows / max(self._seconds, 1e-9):.0f} rows/s  "
            f"memory {'/'.join(format_size(value) for value in memory)}  "
            f"{duration(left)} left"
        )

    def _evaluate(self, split: Split, when: When) -> KeptEvaluation | None:
        """Evaluate on a split; what an earlier sitting found before tuning is taken from there."""
        examples = self._job.sets.get(split)
        if examples is None:
            return None
        if when == "before":
            known = self._metrics.find(split, when)
            if known is not None:
                return known
        initial = when == "before"
        params = self._tuner.initial() if initial else self._tuner.adapter()
        show = self._progress.count(f"evaluating {when} tuning, {split} rows")

        def tell(done: int, total: int) -> None:
            self._signals.check()
            show(done, total)

        size = self._job.inputs.eval_batch_size
        self._tuner.sync()
        with self._tuner.engine.interruptible(self._signals.check):
            found = evaluate(
                self._tuner.engine, params, examples, size, tell, scope=self._tuner.scope
            )
        self._progress.end()
        check_loss(found, f"evaluating {when} tuning, {split} rows")
        score = self._score(split, when, params)
        entry = {
            "event": "eval",
            "split": split,
            "when": when,
            "step": 0 if initial else self._tuner.step_number,
            "seconds": 0.0 if initial else round(self._tuner.elapsed_s, 4),
            "rows": found.rows,
            "loss": found.loss,
            "accuracy": found.accuracy,
            **({} if score is None else {"score": score}),
        }
        self._metrics.write(entry)
        return KeptEvaluation(split, when, found.loss, found.accuracy, score)

    def _score(self, split: str, when: str, params: Mapping[str, Float32]) -> float | None:
        """Mean score of the answers to a split's questions; None where none are written."""
        objective, questions = self._tuner.probe_evaluator.objective, self._job.questions.get(split)
        if questions is None or not objective.has_answers:
            return None
        show = self._progress.count(f"answering {when} tuning, {split} rows")
        with self._tuner.engine.interruptible(self._signals.check):
            score = objective.mean_score(questions, params, show)
        self._progress.end()
        return score

    def _receipt(self, run: RunFolder, result: dict[str, Any], digest: str) -> dict[str, Any]:
        job, peak = self._job, peak_rss_bytes()
        warnings = list(job.warnings)
        if peak > job.budget:
            warnings.append(
                f"the peak of {format_size(peak)} was above the budget of {format_size(job.budget)}"
            )
            warn(warnings[-1])
        rates = self._tuner.rates
        names = ("before", "after", "test")
        losses = {f"loss_{name}": result.get(f"loss_{name}") for name in names}
        shares = {f"accuracy_{name}": result.get(f"accuracy_{name}") for name in names}
        if job.questions:
            shares |= {f"score_{name}": result.get(f"score_{name}") for name in names}
        return {
            "status": result["status"],
            **({"error": result["error"]} if "error" in result else {}),
            "run": str(run.path),
            "model": job.bundle.manifest.model.id,
            "method": job.config.method,
            "objective": self._tuner.probe_evaluator.objective.reward or job.config.objective,
            "estimated_blocks": self._tuner.estimated_blocks,
            "first_order_blocks": self._tuner.first_order_blocks,
            "batch_size": self._tuner.batch_size,
            "lr": rates.lr if self._tuner.estimated_blocks else None,
            "eps": rates.eps if self._tuner.estimated_blocks else None,
            "first_order_lr": rates.first_order_lr if rates.num_first_order else None,
            "rates": rates.words,
            "events": list(self._events),
            "steps": self._tuner.step_number,
            "seconds": round(self._tuner.elapsed_s, 3),
            "rows_per_s": round(self._rows / self._seconds, 2) if self._seconds else None,
            **losses,
            **shares,
            "peak_bytes": peak,
            "budget_bytes": job.budget,
            "predicted_bytes": job.plan.predicted_bytes,
            "plan": job.plan.as_json(),
            "scope": self._tuner.scope,
            **self._memory_use(),
            "adapter": str(run.adapter),
            "adapter_sha256": digest,
            "warnings": warnings,
            "created_by": CREATED_BY,
        }

    def _memory_use(self) -> dict[str, Any]:
        """What was streamed and split in the end."""
        engine = self._tuner.engine
        return {
            "streamed_blocks": len(engine.streamed),
            "workers": engine.limits.workers,
            "chunk_tokens": engine.limits.chunk_tokens,
            "reliefs": list(engine.reliefs),
        }


def _tell_pause(event: Event) -> None:
    """Say that steps wait for a governor, and that they go on."""
    if isinstance(event, PauseEvent):
        note(f"waiting after {event.step} steps: {event.reason}")
    elif isinstance(event, ResumeEvent):
        note("going on")


def check_loss(found: Evaluation, what: str) -> None:
    """Refuse a loss that says nothing.

    Raises:
        DivergedError: it is not finite.
    """
    if not math.isfinite(found.loss):
        raise DivergedError(f"{what}: the mean loss is {found.loss}")


def _named(when: str, found: KeptEvaluation | None) -> dict[str, Any]:
    names = () if found is None else ("loss", "accuracy", "score")
    return {f"{name}_{when}": getattr(found, name) for name in names}


def receipt_lines(result: dict[str, Any]) -> list[str]:
    rows = [("run", str(result["run"]))]
    if result["accuracy_before"] is not None:
        change = f"{percent(result['accuracy_before'])} -> {percent(result['accuracy_after'])}"
        rows.append(("accuracy", change))
    if result.get("score_before") is not None:
        after = result["score_after"]
        change = f"{result['score_before']:.4f} -> {'-' if after is None else f'{after:.4f}'}"
        rows.append((str(result["objective"]).partition(" ")[0], change))
    if result["loss_before"] is not None:
        after = result["loss_after"]
        change = f"{result['loss_before']:.4f} -> {'-' if after is None else f'{after:.4f}'}"
        rows.append(("loss", change))
    if result["loss_test"] is not None:
        share = result["accuracy_test"]
        what = f"loss {result['loss_test']:.4f}"
        rows.append(("test", what if share is None else f"{percent(share)}, {what}"))
    rows.append(("steps", f"{result['steps']} in {duration(result['seconds'])}"))
    peak, budget = result["peak_bytes"], result["budget_bytes"]
    predicted = format_size(result["predicted_bytes"])
    peaks = f"{format_size(peak)} at the peak ({predicted} predicted)"
    rows.append(("memory", f"{peaks}, budget {format_size(budget)}"))
    rows.append(("adapter", str(result["adapter"])))
    return table(rows)
