"""The line of a run: its rates and the time that is left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from edgezo.cli.tune.step_line import StepLine
from edgezo_runtime.app.best_keeper import BestKeeper
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.governors.battery import Battery, Charge
from edgezo_runtime.governors.thermal import Thermal
from edgezo_runtime.journal.evaluation_record import EvaluationRecord
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.step_report import StepReport, TunerStatus


def lines(planned: int | None, longest_s: float, step_s: list[float], rows: int = 5) -> list[str]:
    """The lines after steps that take so many seconds."""
    run = SimpleNamespace(step_number=0, state=SimpleNamespace(elapsed_s=0.0))
    run.trajectory = SimpleNamespace(settled=TuneConfig(max_time_s=longest_s))
    status = TunerStatus(0, 0.5, 0.0, 0.0, "running", steps_planned=planned)
    run.status = lambda begun: status
    line, found = StepLine(cast(Run, run), 10**9), []
    for number, seconds in enumerate(step_s):
        run.step_number += 1
        run.state.elapsed_s += seconds
        report = StepReport(number, 0.5, 1.0, 0.1, (0,), rows, 9, seconds)
        line.add(report)
        found.append(line.text(report))
    return found


@pytest.mark.parametrize(
    ("planned", "longest_s", "begin", "end"),
    [
        (4, 0.0, "step 1 of 4  loss 0.5000  0.7 rows/s  memory ", "of 1.00 GB  22s left"),
        (4, 20.0, "step 1 of 4  loss", "  13s left"),  # 20 - 7.14, before 3 * 7.14
        (None, 300.0, "step 1  loss", "  4m53s left"),
        (4, 5.0, "step 1 of 4  loss", "  0s left"),  # the step took longer than the run may
    ],
)
def test_rates_and_time_left(planned: int | None, longest_s: float, begin: str, end: str) -> None:
    """A slow run said "0 rows/s", and "-185s left" after its longest time."""
    (line,) = lines(planned, longest_s, [5 / 0.7])
    assert line.startswith(begin)
    assert line.endswith(end)


def test_before_the_clock_moves_nothing_is_made_up() -> None:
    (line,) = lines(4, 0.0, [0.0])
    assert "  - rows/s  " in line
    assert "left" not in line


def test_the_last_step_leaves_no_time() -> None:
    assert [line.split("  ")[-1] for line in lines(3, 0.0, [2.0] * 3)] == [
        "4s left", "2s left", "0s left",
    ]  # fmt: skip


def test_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share, smoothed loss and its curve, epoch, validation, rates, memory, sensors, time left."""
    heat, charge = Thermal(), Battery()
    monkeypatch.setattr(heat.sensor, "_read", lambda: 61.4)
    monkeypatch.setattr(charge.sensor, "_read", lambda: Charge(True, 80.0))
    run = SimpleNamespace(step_number=0, state=SimpleNamespace(elapsed_s=0.0), batch_size=4)
    run.trajectory = SimpleNamespace(settled=TuneConfig(max_time_s=0.0))
    run.examples, run.fraction_done = [None] * 16, 0.2
    run.gate = SimpleNamespace(governors=(heat, charge))
    run.status = lambda begun: TunerStatus(0, 0.5, 0.0, 0.0, "running", steps_planned=10)
    keeper = SimpleNamespace(records=(EvaluationRecord(1, 1.0, 0.7, accuracy=0.75),))
    line = StepLine(cast(Run, run), 10**10, cast(BestKeeper, keeper))
    for number, loss in enumerate([1.0, 2.0]):
        run.step_number += 1
        report = StepReport(number, loss, 1.0, 0.1, (0,), 8, 80, 2.0)
        line.add(report)
    board = line.board(report)
    assert (board.title, board.share, board.left) == ("step 2 of 10", 0.2, "16s left")
    assert board.curve == [1.0, 2.0]
    assert board.curve_text == f"loss {(0.95 + 2) / 1.95:.4f}"
    assert board.facts == [
        "epoch 0.50", "validation 75.0 % at step 1", "4 rows/s", "40 tokens/s", "61 C",
        "battery 80 %",
    ]  # fmt: skip
    (memory,) = board.gauges
    assert 0 < memory.share < 1
    assert memory.text.endswith(" of 10.0 GB")
