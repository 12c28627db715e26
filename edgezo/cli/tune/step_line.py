"""The line that shows how far the steps of a run are."""

from __future__ import annotations

import math

from edgezo.cli.terminal.pace import Pace, time_left
from edgezo.wording import duration, rate
from edgezo_runtime.system.memory import peak_rss_bytes, rss_bytes
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.step_report import StepReport


class StepLine:
    """Makes the line, and measures the rates of this session.

    Args:
        run: the run.
        budget: bytes that the process may take.
    """

    def __init__(self, run: Run, budget: int) -> None:
        self._run = run
        self._budget = budget
        self._rows = Pace()
        self._steps = Pace()

    def add(self, report: StepReport) -> None:
        """Take a step into account."""
        self._rows.add(report.rows, report.elapsed_s)
        self._steps.add(1, report.elapsed_s)

    def text(self, report: StepReport) -> str:
        """The line after a step."""
        planned = self._run.status(begun=True).steps_planned
        of = "" if planned is None else f" of {planned}"
        now, peak, budget = map(format_size, (rss_bytes(), peak_rss_bytes(), self._budget))
        parts = [
            f"step {report.step + 1}{of}",
            f"loss {report.loss:.4f}",
            f"{rate(self._rows.per_second)} rows/s",
            f"memory {now}, peak {peak} of {budget}",
        ]
        left = self._left(planned)
        parts += [] if left is None else [f"{duration(math.ceil(left))} left"]
        return "  ".join(parts)

    def _left(self, planned: int | None) -> float | None:
        """Seconds of tuning that are left by steps and by time, whichever ends first."""
        run = self._run
        longest_s = float(run.trajectory.settled.max_time_s)
        return time_left(
            None if planned is None else planned - run.step_number,
            self._steps.per_second,
            longest_s - run.state.elapsed_s if longest_s else None,
        )
