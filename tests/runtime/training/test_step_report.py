"""What the report of a step and the status of a run say."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.training.step_report import StepReport, TunerStatus
from tests.runtime.tuner_runs import BASE, SIZES, unstarted

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.mark.parametrize(("method", "probes"), [("auto", 2), ("zo-sgd", 2), ("rloo", 8)])
def test_a_report_says_what_the_step_did(bundle, examples, tmp_path, method, probes):
    config = dataclasses.replace(BASE, method=method, schedule="cyclic", lr_schedule="linear")
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        first, second, *_, last = list(tuner)
        assert tuner.done
        assert tuner.run.fraction_done == 1
        assert tuner.step_number == 6
        assert tuner.run.state.elapsed_s >= first.elapsed_s + last.elapsed_s > 0
    assert (first.step, second.step, last.step) == (0, 1, 5)
    assert (first.blocks, second.blocks) == ((0,), (1,))
    assert first.rows == 2 * probes
    indices = unstarted(
        tuner.run.engine, examples, config, tuner.run.folder
    ).run.probes.batches.indices(0)
    assert first.tokens == probes * sum(SIZES[index] for index in indices)
    assert first.lr == pytest.approx(0.03 * (1 - 0.5 / 6))
    assert last.lr == pytest.approx(0.03 * 0.5 / 6)
    assert 0 < first.loss < 20
    assert first.projected_grad > 0


def test_reports_and_statuses_do_not_change() -> None:
    report = StepReport(3, 0.5, 2.0, 0.01, (0, 1), 8, 40, 0.25)
    assert report.events == ()
    assert report == dataclasses.replace(report)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.step = 4  # type: ignore[misc]
    status = TunerStatus(3, 0.5, 1.0, 0.25, "running")
    assert (status.reason, status.examples) == ("", 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.phase = "done"  # type: ignore[misc]


def test_the_status_is_that_of_the_last_report(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        assert math.isnan(tuner.status.loss)
        assert tuner.status.phase == "ready"
        spent = tuner.run.state.elapsed_s
        for report in tuner:
            status = tuner.status
            spent += report.elapsed_s
            assert (status.step, status.loss) == (report.step + 1, report.loss)
            assert status.fraction_done == pytest.approx((report.step + 1) / 6)
            assert status.elapsed_s == pytest.approx(spent)
            assert status.examples == 8
        assert tuner.status.phase == "done"
    assert tuner.status.phase == "closed"
