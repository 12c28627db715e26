"""The curves of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo.report.charts import (
    gradient_chart,
    loss_chart,
    memory_chart,
    rate_chart,
    rows_per_s,
    score_chart,
    score_name,
    score_of,
    throughput_chart,
)
from edgezo.runs.run_record import read_run
from tests.edgezo.written_runs import eval_line, receipt, step_line, written_run


def test_losses_of_one_run(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    chart = loss_chart([run])
    assert [line.label for line in chart.lines] == [
        "", "loss of steps, smoothed", "loss on rows for validation",
    ]  # fmt: skip
    assert chart.lines[2].points == [(0, 0.9), (40, 0.4), (80, 0.45)]
    assert [mark.point for mark in chart.marks] == [(40, 0.4)]
    assert chart.svg(360, 250) == loss_chart([run]).svg(360, 250)


def test_rollbacks_are_marked(tmp_path: Path) -> None:
    lines = [step_line(0), {"event": "divergence", "step": 0, "text": "rolled back"}, step_line(1)]
    chart = loss_chart([read_run(written_run(tmp_path / "run", metrics=lines))])
    assert chart.events == [(0.0, "rolled back")]


def test_several_runs_have_a_colour_each(tmp_path: Path) -> None:
    runs = [read_run(written_run(tmp_path / name)) for name in "ab"]
    for chart in (loss_chart(runs), rate_chart(runs), throughput_chart(runs), memory_chart(runs)):
        named = [(line.label, line.series) for line in chart.lines if line.label]
        assert named == [("a", 0), ("b", 1)]


def test_scores_and_their_intervals(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    chart = score_chart([run])
    assert chart is not None
    assert [mark.label for mark in chart.marks] == ["84.0 %"]
    (band,) = chart.bands
    assert all(low < share < high for (_, low, high), (_, share) in
               zip(band.points, chart.lines[0].points, strict=True))  # fmt: skip
    assert (score_name(run), score_of(run.valid[0])) == ("accuracy", 0.52)


def test_answers_have_their_own_score(tmp_path: Path) -> None:
    lines = [eval_line("before", 0, 1.0, None, score=0.2)]
    ended = receipt(objective="f1 of answers")
    run = read_run(written_run(tmp_path / "run", metrics=lines, ended=ended))
    assert score_name(run) == "f1"
    chart = score_chart([run])
    assert chart is not None
    assert not chart.bands
    without = read_run(written_run(tmp_path / "b", metrics=[eval_line("before", 0, 1.0, None)]))
    assert score_chart([without]) is None


def test_memory_over_time(tmp_path: Path) -> None:
    chart = memory_chart([read_run(written_run(tmp_path / "run"))])
    assert [line.label for line in chart.lines] == ["after each step", "peak so far"]
    assert chart.lines[0].points[0] == (0.25, 250_000_000)
    assert chart.lines[0].points[-1] == (20.0, 250_079_000)
    assert chart.limits == [(500_000_000, "budget 500 MB")]
    assert chart.events == [(2.5, "memory is short: 1 of 2 workers")]
    assert chart.y_text(2e8) == "200 MB"


def test_rates(tmp_path: Path) -> None:
    lines = [step_line(0), step_line(1, elapsed_s=0), step_line(2, rows=None)]
    run = read_run(written_run(tmp_path / "run", metrics=lines))
    assert rows_per_s(run.steps) == [(1, 64)]
    assert throughput_chart([run]).from_zero
    gradients = gradient_chart([run])
    assert gradients is not None
    assert gradients.lines[0].points == [(1, 1.5), (2, 1.5), (3, 1.5)]
    assert rate_chart([run]).lines[0].points[0] == pytest.approx((1, 0.01))
    exact = [step_line(0, projected_grad=0.0), step_line(1, projected_grad=0.0)]
    assert gradient_chart([read_run(written_run(tmp_path / "exact", metrics=exact))]) is None
