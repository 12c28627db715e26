"""One session of a run: evaluate, tune, evaluate, write adapter and receipt."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from edgezo._version import CREATED_BY
from edgezo.cli.settings.flags import with_flags
from edgezo.cli.terminal.output import note, warn
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.cli.tune.evaluations import Evaluations
from edgezo.cli.tune.job import Job
from edgezo.cli.tune.metrics import Metrics
from edgezo.cli.tune.receipt import make_receipt
from edgezo.cli.tune.run_end import Failure, describe_end
from edgezo.cli.tune.step_line import StepLine
from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.app.best_keeper import KeptAdapter
from edgezo_runtime.app.events import (
    DivergenceEvent,
    Event,
    PauseEvent,
    PressureEvent,
    ResumeEvent,
    StepEvent,
)
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.data.scope import invocation
from edgezo_runtime.errors import (
    BudgetStopError,
    DivergedError,
    InterruptedRunError,
    RewardError,
)
from edgezo_runtime.system.files import atomic_write
from edgezo_runtime.system.memory import peak_rss_bytes, rss_bytes
from edgezo_runtime.system.memory_errors import budget_stop
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.step_report import StepReport

FLAT_STEPS = 10
"""First steps of a run that cause a warning if all their scores are alike."""


class Session:
    """One session of a run: a listener to the events of its tuner.

    Args:
        job: the run and its settings.
        tuner: takes the steps; started.
        metrics: file for steps, evaluations and events.
        signals: can interrupt the session.
        progress: shows how far it is.
    """

    def __init__(
        self,
        job: Job,
        tuner: Tuner,
        metrics: Metrics,
        signals: StopSignals,
        progress: Progress,
    ) -> None:
        self._job = job
        self._tuner = tuner
        self._run = tuner.run
        self._metrics = metrics
        self._signals = signals
        self._progress = progress
        self._evaluations = Evaluations(job, tuner, metrics, signals, self._progress)
        self._line = StepLine(tuner.run, job.budget, tuner.keeper)
        self._rows = 0
        self._seconds = 0.0
        self._events: list[str] = []
        self._flat = job.config.objective != "loss"
        tuner.listen(self._on_event)

    def tune(self) -> dict[str, Any]:
        """Evaluate, tune, evaluate, write adapter and receipt; return the receipt."""
        result: dict[str, Any] = {}
        folder = self._run.folder
        failure = self._until_stopped(self._evaluate_and_step, result)
        if isinstance(failure, BudgetStopError):
            self._run.engine.give_back()
            if self._tuner.closed:
                self._tuner.run_events.tell_reliefs()
                raise failure
        steps = self._tuner.step_number
        self._tuner.run_events.tell_reliefs()
        self._tuner.snapshot()
        self._hand_out(result)
        if failure is None and not self._signals.requested:
            failure = self._until_stopped(self._evaluate_after, result)
            self._tuner.run_events.tell_reliefs()
        self._metrics.write({"event": "keep", "step": steps, "kept_step": result["kept_step"]})
        result |= describe_end(self._run, failure, interrupted=self._signals.requested)
        receipt = self._receipt(result)
        text = json.dumps(receipt, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        atomic_write(folder.receipt, text.encode())
        if failure is not None:
            further = ""
            if isinstance(failure, RewardError):
                further = (
                    f"; a corrected reward is another objective: start another run, with --adapter "
                    f"{folder.path}"
                )
            raise type(failure)(
                f"{failure}; the state after {steps} steps is saved in {folder.path}{further}"
            ) from failure
        return receipt

    def _hand_out(self, result: dict[str, Any]) -> KeptAdapter:
        """Write the adapter of the run: the best of those evaluated, or the last one."""
        kept = self._tuner.keeper.kept()
        if kept.rebuilt:
            self._warn(f"{kept.rebuilt}; step {kept.step} was rebuilt from the journal")
        folder, reading = self._run.folder, self._tuner.examples.reading
        classes = reading is not None and bool(reading.labels)
        adapter = make_adapter(
            folder.adapter,
            self._job.bundle,
            kept.tensors,
            steps=kept.step,
            created_by=CREATED_BY,
            scope=self._run.scope,
            invocation=invocation(self._tuner.examples),
            reading=reading,
            answers=self._job.config.answers(classes=classes),
        )
        result |= {"adapter_sha256": adapter.save(folder.adapter), "kept_step": kept.step}
        self._tuner.keeper.handed_out(kept.step)
        found = kept.evaluation
        if found is not None and kept.step:
            result |= {"loss_after": found.loss, "accuracy_after": found.accuracy}
            result["initial_is_best"] = kept.initial_is_best
            if self._job.opened.questions:
                result["score_after"] = found.score
        return kept

    def _until_stopped(
        self, work: Callable[[dict[str, Any]], None], result: dict[str, Any]
    ) -> Failure | None:
        """Do work that a signal, divergence, refused memory or a failing reward can end."""
        try:
            work(result)
        except (DivergedError, BudgetStopError, RewardError) as error:
            return error
        except MemoryError as error:
            return budget_stop(error)
        except InterruptedRunError:
            pass
        finally:
            self._progress.end()
        return None

    def _evaluate_and_step(self, result: dict[str, Any]) -> None:
        if self._run.rates.words:
            self._progress.end()
            note(f"rates: {self._run.rates.words}")
        result |= self._evaluations.before()
        self._evaluations.during()  # a crash may have come between a step and its evaluation
        for _ in self._tuner:
            self._evaluations.during()

    def _evaluate_after(self, result: dict[str, Any]) -> None:
        result |= self._evaluations.after()
        result["loss_last"] = result.get("loss_after")
        result |= self._evaluations.test(self._hand_out(result))

    # --- events ---

    def _on_event(self, event: Event) -> None:
        """Write an event to the metrics, and show it if the user should see it."""
        match event:
            case StepEvent(report=report):
                self._on_step(report)
            case DivergenceEvent(step=step, text=text):
                self._warn(text)
                text = with_flags(text)
                self._events.append(text)
                self._metrics.write({"event": "divergence", "step": step - 1, "text": text})
            case PressureEvent(step=step, relief=text):
                self._warn(text)
                self._metrics.write({"event": "pressure", "step": step, "relief": text})
            case PauseEvent(step=step, reason=reason):
                self._on_pause(f"waiting after {step} steps: {reason}")
            case ResumeEvent():
                self._progress.end()
                note("resuming")
            case _:
                pass

    def _on_pause(self, text: str) -> None:
        """Show why steps wait; a terminal has one line for all reasons."""
        if self._progress.live:
            self._progress.update(text, force=True)
        else:
            note(text)

    def _on_step(self, report: StepReport) -> None:
        self._rows += report.rows
        self._seconds += report.elapsed_s
        self._line.add(report)
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
                "memory_bytes": rss_bytes(),
                "peak_bytes": peak_rss_bytes(),
            }
        )
        self._flat = self._flat and not report.projected_grad
        if self._flat and report.step + 1 == FLAT_STEPS:
            text = (
                f"step {FLAT_STEPS}: all probes have scored alike so far, so the run has learned "
                f"nothing; give a larger --eps or --batch-size, or a finer score"
            )
            self._on_event(DivergenceEvent(report.step + 1, text))
        if self._progress.due():
            self._progress.show(self._line.board(report), self._line.text(report))

    def _warn(self, text: str) -> None:
        self._progress.end()
        warn(text)

    def _receipt(self, result: dict[str, Any]) -> dict[str, Any]:
        job, peak = self._job, peak_rss_bytes()
        warnings = list(job.warnings)
        if peak > job.budget:
            warnings.append(
                f"the peak of {format_size(peak)} was above the budget of {format_size(job.budget)}"
            )
            warn(warnings[-1])
        if result.get("initial_is_best") and result["status"] == "done":
            warnings.append(
                f"tuning did not help: on the rows for validation the initial adapter is better "
                f"than all tuned ones; {self._run.folder.adapter} is the best tuned one"
            )
            warn(warnings[-1])
        return make_receipt(
            job,
            result,
            peak_bytes=peak,
            events=self._events,
            rows_per_s=self._rows / self._seconds if self._seconds else None,
            warnings=warnings,
        )
