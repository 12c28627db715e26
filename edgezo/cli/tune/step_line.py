"""The line and the block that show how far the steps of a run are."""

from __future__ import annotations

import math
from collections import deque

from edgezo.cli.terminal.board import Board, Gauge
from edgezo.cli.terminal.pace import Pace, time_left
from edgezo.wording import duration, percent, rate
from edgezo_runtime.app.best_keeper import BestKeeper
from edgezo_runtime.governors.battery import Battery
from edgezo_runtime.governors.thermal import Thermal
from edgezo_runtime.system.memory import peak_rss_bytes, rss_bytes
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.step_report import StepReport

_LOSSES = 2000
"""Steps whose losses the curve shows."""

_KEPT = 0.95
"""Weight of the loss of a step, in units of that of the next one."""


class StepLine:
    """Makes the line and the block, and measures the rates of this session.

    Args:
        run: the run.
        budget: bytes that the process may take.
        keeper: has the evaluations.
    """

    def __init__(self, run: Run, budget: int, keeper: BestKeeper | None = None) -> None:
        self._run = run
        self._budget = budget
        self._keeper = keeper
        self._rows = Pace()
        self._tokens = Pace()
        self._steps = Pace()
        self._losses: deque[float] = deque(maxlen=_LOSSES)
        self._weight = self._loss = 0.0

    def add(self, report: StepReport) -> None:
        """Take a step into account."""
        self._rows.add(report.rows, report.elapsed_s)
        self._tokens.add(report.tokens, report.elapsed_s)
        self._steps.add(1, report.elapsed_s)
        if math.isfinite(report.loss):
            self._losses.append(report.loss)
            self._weight = _KEPT * self._weight + 1
            self._loss = _KEPT * self._loss + report.loss

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

    def board(self, report: StepReport) -> Board:
        """The block after a step."""
        run = self._run
        planned = run.status(begun=True).steps_planned
        of = "" if planned is None else f" of {planned}"
        left = self._left(planned)
        now, peak, budget = rss_bytes(), peak_rss_bytes(), self._budget
        sizes = f"{format_size(now)}, peak {format_size(peak)} of {format_size(budget)}"
        smooth = self._loss / self._weight if self._weight else math.nan
        return Board(
            title=f"step {report.step + 1}{of}",
            share=run.fraction_done,
            left="" if left is None else f"{duration(math.ceil(left))} left",
            curve=list(self._losses),
            curve_text=f"loss {smooth:.4f}",
            facts=[*self._facts(), *self._readings()],
            gauges=[Gauge("memory", now / budget, sizes)],
        )

    def _facts(self) -> list[str]:
        """Epochs, the last evaluation, and rates."""
        run = self._run
        found = [f"epoch {run.step_number * run.batch_size / max(1, len(run.examples)):.2f}"]
        records = () if self._keeper is None else self._keeper.records
        if records:
            last = records[-1]
            score = last.accuracy if last.score is None else last.score
            told = f"loss {last.loss:.4f}" if score is None else percent(score)
            found.append(f"validation {told} at step {last.step}")
        found.append(f"{rate(self._rows.per_second)} rows/s")
        return [*found, f"{rate(self._tokens.per_second)} tokens/s"]

    def _readings(self) -> list[str]:
        """What the governors of the run read: temperature and charge."""
        found = []
        for governor in self._run.gate.governors:
            if isinstance(governor, Thermal) and (heat := governor.sensor.value()) is not None:
                found.append(f"{heat:.0f} C")
            if isinstance(governor, Battery) and (charge := governor.sensor.value()) is not None:
                kind = "battery" if charge.discharging else "mains"
                found.append(f"{kind} {charge.percent:.0f} %")
        return found

    def _left(self, planned: int | None) -> float | None:
        """Seconds of tuning that are left by steps and by time, whichever ends first."""
        run = self._run
        longest_s = float(run.trajectory.settled.max_time_s)
        return time_left(
            None if planned is None else planned - run.step_number,
            self._steps.per_second,
            longest_s - run.state.elapsed_s if longest_s else None,
        )
