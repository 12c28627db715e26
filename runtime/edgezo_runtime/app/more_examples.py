"""Adds examples to a run while it takes steps, and wakes those who wait for them."""

from __future__ import annotations

import threading
import time

from edgezo_runtime.app.answerer import Answerer
from edgezo_runtime.app.events import ExamplesEvent
from edgezo_runtime.app.run_events import RunEvents
from edgezo_runtime.data.sources import Source, require_alike
from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.gate import GLANCE_S
from edgezo_runtime.training.run import Run


class MoreExamples:
    """Takes examples from any thread.

    Args:
        run: the run.
        events: events of the run.
        answerer: reads rows like those of the run.
        longest: tokens per row that the run is planned for; None if nothing was planned.
    """

    def __init__(
        self, run: Run, events: RunEvents, answerer: Answerer, longest: int | None
    ) -> None:
        self._run = run
        self._events = events
        self._answerer = answerer
        self._longest = longest
        self._adding = threading.Condition()

    def add(self, rows: Source) -> int:
        """Add examples; arguments, result and errors as for `Tuner.add`."""
        run = self._run
        objective = run.probes.objective
        if objective.has_answers:
            raise UsageError(
                f"`objective` {objective.name}: a run that is scored by its texts takes no further "
                f"examples; begin another run on all rows, with "
                f"`adapter={str(run.folder.path)!r}`"
            )
        more = self._answerer.read(rows, "train")
        require_alike(more, run.examples, self._longest, run.scope)
        with self._adding:
            with run.lock:
                count = run.log.add(more)
                run.note_progress()
            self._adding.notify_all()
        self._events.emit(ExamplesEvent(run.step_number, len(more), count))
        return count

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until a step is left; False if the run was stopped or closed, or time is up."""
        run = self._run
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._adding:
            while not run.gate.stopped and not run.closed:
                if not run.done:
                    return True
                left = GLANCE_S if until is None else min(GLANCE_S, until - time.monotonic())
                if left <= 0:
                    return False
                self._adding.wait(left)  # a signal's `stop` takes no lock
        return False

    def wake(self) -> None:
        """Wake those who wait: the run is closed."""
        with self._adding:
            self._adding.notify_all()
