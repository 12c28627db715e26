"""The events of a run, told to the streams and subscribers of its tuner."""

from __future__ import annotations

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
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.step_report import StepReport


class RunEvents:
    """Says what happens in a run; the listener of its training loop.

    Args:
        run: what the events are of.

    Attributes:
        hub: hands events to streams, subscribers and listeners.
        begun: was a step taken since the run was opened?
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.hub = EventHub()
        self.begun = False
        self._reliefs_told = 0

    def emit(self, event: Event) -> None:
        """Tell an event."""
        self.hub.emit(event)

    # --- the training loop's listener ---

    def on_pause(self, reason: str | None) -> None:
        """Tell that steps wait, or go on; what was done is on the disk before a wait."""
        run = self._run
        if reason is None:
            self.emit(ResumeEvent(run.step_number))
            return
        run.sync()
        self.emit(PauseEvent(run.step_number, reason))

    def on_snapshot(self) -> None:
        """Tell that a snapshot is on the disk."""
        self.emit(CheckpointEvent(self._run.step_number, self._run.folder.snapshot))

    # --- steps ---

    def tell_step(self, report: StepReport) -> None:
        """Tell a step, what was noticed in it, and what was done for want of memory."""
        step = self._run.step_number
        self.emit(StepEvent(step, report))
        for text in report.events:
            self.emit(DivergenceEvent(step, text))
        self.tell_reliefs()

    def tell_reliefs(self) -> None:
        """Tell what the engine did since the last time because memory was short."""
        run = self._run
        with run.lock:
            new = run.engine.reliefs[self._reliefs_told :]
            self._reliefs_told += len(new)
        for text in new:
            self.emit(PressureEvent(run.step_number, text))

    def tell_end(self, error: Exception | None = None) -> None:
        """Tell that steps have ended; an interrupt is none of its own."""
        if isinstance(error, InterruptedRunError):
            return
        text = "" if error is None else str(error) or type(error).__name__
        phase = self._run.status(begun=self.begun).phase
        self.emit(EndEvent(self._run.step_number, phase, text))
