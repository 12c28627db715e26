"""Emits the events of a run to the streams and subscribers of its tuner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgezo_runtime.app.event_streams import EventHub
from edgezo_runtime.app.events import (
    CheckpointEvent,
    DivergenceEvent,
    EndEvent,
    Event,
    PauseEvent,
    PressureEvent,
    ResumeEvent,
    StepEvent,
)
from edgezo_runtime.errors import InterruptedRunError
from edgezo_runtime.system.memory_errors import budget_stop
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.step_report import StepReport


class RunEvents:
    """Emits the events of a run; the listener of its training loop.

    Args:
        run: the run.

    Attributes:
        hub: hands events to streams, subscribers and listeners.
        begun: was a step begun since the run was opened?
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.hub = EventHub()
        self.begun = False
        self._reliefs_told = 0

    def emit(self, event: Event) -> None:
        """Emit an event."""
        self.hub.emit(event)

    # --- the training loop's listener ---

    def on_pause(self, reason: str | None) -> None:
        """Emit that steps wait, once all steps are on the disk; or that they are taken again."""
        run = self._run
        if reason is None:
            self.emit(ResumeEvent(run.step_number))
            return
        run.sync()
        self.emit(PauseEvent(run.step_number, reason))

    def on_snapshot(self) -> None:
        """Emit that a snapshot is on the disk."""
        self.emit(CheckpointEvent(self._run.step_number, self._run.folder.snapshot))

    # --- steps ---

    def tell_step(self, report: StepReport) -> None:
        """Emit a step, its rollbacks and plateaus, and reactions to short memory."""
        step = self._run.step_number
        self.emit(StepEvent(step, report))
        for text in report.events:
            self.emit(DivergenceEvent(step, text))
        self.tell_reliefs()

    def tell_reliefs(self) -> None:
        """Emit the engine's reactions to short memory since the last call."""
        run = self._run
        with run.lock:
            new = run.engine.reliefs[self._reliefs_told :]
            self._reliefs_told += len(new)
        for text in new:
            self.emit(PressureEvent(run.step_number, text))

    @contextlib.contextmanager
    def telling_failure(self) -> Iterator[None]:
        """Emit the error that ends a step, also one of a governor.

        Raises:
            BudgetStopError: memory was refused, but not in an update, which handles it itself.
        """
        try:
            yield
        except MemoryError as error:
            failure = budget_stop(error, " between two passes")
            self.tell_end(failure)
            raise failure from error
        except Exception as error:
            self.tell_end(error)
            raise

    def tell_end(self, error: Exception | None = None) -> None:
        """Emit that steps have ended; an interrupt ends the iteration, which then emits this."""
        if isinstance(error, InterruptedRunError):
            return
        text = "" if error is None else str(error) or type(error).__name__
        status = self._run.status(begun=self.begun)
        self.emit(EndEvent(self._run.step_number, status.phase, text, status.ended_by))
