"""Examples that are added to a run while it steps, and threads that wait for them."""

from __future__ import annotations

import threading
import time

from edgezo_runtime.app.answerer import Answerer
from edgezo_runtime.app.events import ExamplesEvent
from edgezo_runtime.app.run_events import RunEvents
from edgezo_runtime.budget.growth import Growth
from edgezo_runtime.budget.plan import Plan
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.sources import Source, require_alike
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.governors.gate import GLANCE_S
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.run import Run


class AddedExamples:
    """Adds examples to a run; any thread may call it.

    Args:
        run: the run.
        events: events of the run.
        answerer: reads rows like those of the run.
        longest: tokens of the longest row that the plan covers; None without a budget.
        plan: memory plan of the run; None without a budget.
    """

    def __init__(
        self,
        run: Run,
        events: RunEvents,
        answerer: Answerer,
        longest: int | None,
        plan: Plan | None = None,
    ) -> None:
        self._run = run
        self._events = events
        self._answerer = answerer
        self._longest = longest
        self._budget = 0 if plan is None else plan.budget_bytes
        self._growth = None if plan is None else plan.growth
        self._changed = threading.Condition()

    def add(self, rows: Source) -> int:
        """Add examples; arguments, result and errors as for `Tuner.add`."""
        run, objective = self._run, self._run.probes.objective
        if objective.has_answers:
            raise UsageError(
                f"`objective` {objective.name}: a run that is scored by its texts takes no further "
                f"examples; begin another run on all rows, with "
                f"`adapter={str(run.folder.path)!r}`"
            )
        more = self._answerer.read(rows, "train")
        require_alike(more, run.examples, self._longest, run.scope)
        with self._changed:
            with run.lock:
                growth = self._grown(more)
                count = run.log.add(more)
                if growth is not None:
                    self._growth, run.engine.reservation = growth, growth.reservation
                run.note_progress()
            self._changed.notify_all()
        self._events.emit(ExamplesEvent(run.step_number, len(more), count))
        return count

    def _grown(self, more: ExampleSet) -> Growth | None:
        """Compute what passes may take with these rows besides; None without a budget.

        Raises:
            DataError: no way to run would fit in the budget.
        """
        if self._growth is None:
            return None
        run = self._run
        batch = min(run.probes.batches.wanted_size, len(run.examples) + len(more))
        growth = self._growth.with_rows(more, batch)
        if growth.smallest_bytes > self._budget:
            needed = format_size(growth.smallest_bytes, up=True)
            raise DataError(
                f"{more.path}: with these rows batches have {batch} examples of up to "
                f"{growth.sizes.longest} tokens; such steps may take {needed}, and the budget is "
                f"{format_size(self._budget)}; open the run with a smaller `max_seq` or "
                f"`batch_size`, or with `budget='{needed}'`"
            )
        return growth

    def wait_for_step(self, timeout_s: float | None = None) -> bool:
        """Wait until a step is left; False if the run was stopped or closed, or time is up."""
        run = self._run
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not run.gate.stopped and not run.closed:
                if not run.done:
                    return True
                left = GLANCE_S if until is None else min(GLANCE_S, until - time.monotonic())
                if left <= 0:
                    return False
                self._changed.wait(left)  # a signal's `stop` takes no lock
        return False

    def wake(self) -> None:
        """Let the threads that wait look again, after the run was closed."""
        with self._changed:
            self._changed.notify_all()
