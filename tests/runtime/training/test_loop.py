"""The training loop: the order of its parts, learning rates, and losses that are not finite."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.errors import (
    BudgetStopError,
    CacheRangeError,
    DivergedError,
    InterruptedRunError,
    UsageError,
)
from edgezo_runtime.governors.gate import PausedError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.training.loop import TrainingLoop
from tests.runtime.fake_runs import FakeRun, Listener
from tests.runtime.tuner_runs import BASE, bits, run_to_the_end

pytestmark = pytest.mark.usefixtures("unsynced")


def fake_loop(run: FakeRun) -> TrainingLoop:
    stand_in: Any = run
    return TrainingLoop(stand_in, Listener(run))


STEP = ["examples 0", "evaluate", "journal", "apply", "progress"]
SAVED = ["snapshot", "told of the snapshot"]


def test_a_step_is_evaluated_journaled_applied_saved_and_reported() -> None:
    run = FakeRun(dataclasses.replace(BASE, save_every=2, lr_schedule="linear"))
    report = fake_loop(run).step()
    assert run.calls == STEP
    run.calls.clear()
    fake_loop(run).step()
    assert run.calls == ["examples 1", *STEP[1:], *SAVED]
    assert (report.step, report.loss, report.blocks) == (0, 0.625, (0, 1))
    assert (report.rows, report.tokens, report.events) == (4, 11, ("noticed",))
    assert report.projected_grad == 2.0
    assert report.lr == pytest.approx(0.03 * 0.5 * (1 - 0.5 / 6))
    assert run.loss == 0.625
    assert run.state.elapsed_s > 2.0


def test_new_examples_come_before_the_passes() -> None:
    run = FakeRun()
    run.examples = 9
    fake_loop(run).step()
    assert run.calls == ["examples 0", "grow", *STEP[1:]]


def test_a_step_that_is_paused_is_taken_again_from_its_beginning() -> None:
    run = FakeRun()
    run.errors["evaluate"] = [PausedError("lunch"), PausedError("lunch")]
    assert fake_loop(run).step().step == 0
    interrupted = ["examples 0", "evaluate", "pause lunch", "pause None"]
    assert run.calls == [*interrupted, *interrupted, *STEP]


def test_a_stop_leaves_the_run_as_it_was() -> None:
    run = FakeRun()
    run.gate.stop()
    with pytest.raises(InterruptedRunError):
        fake_loop(run).step()
    assert run.calls == ["examples 0", "evaluate"]
    assert (run.step_number, run.state.elapsed_s) == (0, 2.0)


def test_a_run_that_is_closed_or_hopeless_takes_no_step() -> None:
    run = FakeRun()
    run.state.hopeless = "diverged too often"
    with pytest.raises(DivergedError, match="diverged too often"):
        fake_loop(run).step()
    run.closed = True
    with pytest.raises(UsageError, match="the tuner is closed"):
        fake_loop(run).step()
    assert run.calls == []


def test_a_loss_that_is_not_finite_is_a_step_without_losses() -> None:
    run = FakeRun()
    run.errors["evaluate"] = [DivergedError("loss nan")]
    report = fake_loop(run).step()
    assert run.calls == [*STEP[:2], "without losses", *STEP[2:]]
    assert report.events == ("step 0: loss nan", "noticed")
    assert math.isnan(report.loss)
    assert run.step_number == 1


@pytest.mark.parametrize(
    ("rollback", "error"), [(False, DivergedError("nan")), (True, CacheRangeError("too large"))]
)
def test_where_nothing_is_rolled_back_the_loss_ends_the_step(
    rollback: bool, error: DivergedError
) -> None:
    run = FakeRun(dataclasses.replace(BASE, rollback=rollback))
    run.errors["evaluate"] = [error]
    with pytest.raises(type(error), match=str(error)):
        fake_loop(run).step()
    assert (run.calls, run.step_number) == (STEP[:2], 0)


RESTORED = ["close", "give_back", "begin", "resume"]


def test_an_update_that_was_refused_memory_is_done_again_from_the_journal() -> None:
    run = FakeRun()
    run.errors["apply"] = [MemoryError("refused")]
    run.resumed_steps = 1  # the journal has the step
    assert fake_loop(run).step().step == 0
    assert run.calls == [*STEP[:4], *RESTORED, "progress"]
    assert run.reliefs == ["refused for the update of a step: the update was repeated"]


def test_a_record_that_was_refused_memory_ends_the_step() -> None:
    run = FakeRun()
    run.errors["journal"] = [MemoryError("refused")]
    with pytest.raises(BudgetStopError, match="memory is short: refused for the record of a step"):
        fake_loop(run).step()
    assert run.calls == [*STEP[:3], *RESTORED]


@pytest.mark.parametrize("where", RESTORED)
def test_where_the_journal_cannot_be_replayed_it_has_the_step(where: str) -> None:
    run = FakeRun()
    run.errors |= {"apply": [MemoryError("first")], where: [MemoryError("second")]}
    with pytest.raises(BudgetStopError, match=r"first for the update .*journal\.bin, resume"):
        fake_loop(run).step()


def test_a_snapshot_that_was_refused_memory_is_left_out() -> None:
    run = FakeRun(dataclasses.replace(BASE, save_every=1))
    run.errors["snapshot"] = [MemoryError("refused")]
    assert fake_loop(run).step().step == 0
    assert run.calls == [*STEP, "snapshot", "give_back"]
    assert run.reliefs == ["refused: no snapshot after 1 steps"]


def test_rates_are_measured_where_a_run_begins() -> None:
    run = FakeRun()
    run.errors["measure"] = [MemoryError("refused"), PausedError("lunch")]
    fake_loop(run).start(resume=True)
    assert run.calls == [
        "start", "measure", "shrink", "measure", "pause lunch", "pause None", "measure",
    ]  # fmt: skip
    assert (run.rates.lr, run.rates.eps) == (0.25, 0.5)
    assert 0 <= run.rates.seconds < 60


def test_memory_refused_before_the_first_step_is_a_short_word() -> None:
    run = FakeRun()
    run.errors["start"] = [MemoryError("refused")]
    with pytest.raises(BudgetStopError, match=r"refused before the first step; run is unchanged"):
        fake_loop(run).start(resume=True)


# --- on a tiny model ---


def test_the_journal_has_every_step_before_it_is_applied(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        reports = list(tuner)
    records = list(read_journal(tmp_path / "journal.bin").records)
    assert [record.step for record in records] == list(range(6))
    assert [record.lr for record in records] == [report.lr for report in reports]
    assert [record.blocks for record in records] == [(0, 1)] * 6
    for record, report in zip(records, reports, strict=True):
        assert record.losses.mean() == pytest.approx(report.loss, rel=1e-6)


def test_time_ends_a_run_and_drives_its_rate(bundle, examples, tmp_path, monkeypatch):
    clock = iter(np.arange(0, 1000, 0.5).tolist())
    monkeypatch.setattr("edgezo_runtime.training.loop.time.monotonic", lambda: next(clock))
    config = dataclasses.replace(BASE, steps=0, max_time_s=4.0, lr_schedule="linear")
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        measuring = tuner.run.state.elapsed_s
        assert measuring == 0.5
        reports = list(tuner)
        # a step reads the clock three times; the journal has it once, for when to sync
        spent = reports[0].elapsed_s
        assert len(reports) == np.ceil((4.0 - measuring) / spent)
        assert tuner.run.state.elapsed_s == pytest.approx(measuring + spent * len(reports))
    rates = [report.lr / 0.03 for report in reports]
    left = 4.0 - measuring
    assert rates == pytest.approx([1 - spent * i / left for i in range(len(rates))])


def test_the_time_of_measuring_does_not_change_the_first_rate(
    bundle, examples, tmp_path, monkeypatch
):
    """Pins a first learning rate that depended on how fast the machine was."""
    config = dataclasses.replace(BASE, lr="auto", eps="auto", max_time_s=300, steps=2)
    found = []
    for pace in (0.001, 5.0):
        clock = iter(np.arange(0, 10**6 * pace, pace))
        with monkeypatch.context() as patch:
            patch.setattr(
                "edgezo_runtime.training.loop.time.monotonic", lambda clock=clock: next(clock)
            )
            with Tuner.open(bundle, examples, config, tmp_path / f"{pace}") as tuner:
                rates = dataclasses.replace(tuner.run.rates, seconds=0)
                found.append((rates, tuner.step().lr))
            with Tuner.open(bundle, examples, config, tmp_path / f"{pace}", resume=True) as tuner:
                rates = dataclasses.replace(tuner.run.rates, seconds=0)
                assert (rates, tuner.step_number) == (found[0][0], 1)
    assert found[0] == found[1]


def test_a_run_beyond_the_horizon_takes_smaller_steps(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, steps=8, horizon=2, lr_schedule="constant")
    with Tuner.open(bundle, examples, config, tmp_path / "long") as tuner:
        assert [report.lr for report in tuner] == pytest.approx([BASE.lr / 4] * 8)
    config = dataclasses.replace(config, horizon=0)
    with Tuner.open(bundle, examples, config, tmp_path / "never") as tuner:
        assert tuner.step().lr == pytest.approx(BASE.lr)


@pytest.mark.parametrize("rates", [{"lr": 1e-31}, {"eps": 1e31}])
def test_rates_that_no_run_can_be_resumed_with_are_refused(bundle, examples, tmp_path, rates):
    with pytest.raises(UsageError, match=r"(lr|eps).*must be 1e-30 to 1e\+30"):
        Tuner.open(bundle, examples, dataclasses.replace(BASE, **rates), tmp_path)
    assert not (tmp_path / "journal.bin").exists()


@pytest.mark.parametrize("normalize", [True, False])
def test_a_loss_that_is_not_finite_leaves_the_run_as_it_was(
    bundle, examples, tmp_path, monkeypatch, normalize
):
    config = dataclasses.replace(BASE, normalize=normalize, rollback=False)
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    with Tuner.open(bundle, examples, config, tmp_path / "run") as tuner:
        for _ in range(3):
            tuner.step()
        before = bits(tuner)
        score = tuner.run.engine.score

        def poisoned(*args, **options):
            scores = score(*args, **options)
            scores[1, 0] = np.nan
            return scores

        with monkeypatch.context() as patch:
            patch.setattr(tuner.run.engine, "score", poisoned)
            with pytest.raises(DivergedError, match="loss nan is not finite at probe 1 of 2"):
                tuner.step()
        assert bits(tuner) == before
        assert tuner.step_number == 3
    assert len(list(read_journal(tmp_path / "run" / "journal.bin").records)) == 3
    assert run_to_the_end(bundle, examples, config, tmp_path / "run", resume=True) == whole


def test_parameters_that_are_not_finite_are_noticed(bundle, examples, tmp_path):
    unguarded = dataclasses.replace(BASE, rollback=False)
    with Tuner.open(bundle, examples, unguarded, tmp_path) as tuner:
        tuner.run.state.theta[next(iter(tuner.run.state.slots))][0, 0] = np.inf
        with pytest.raises(DivergedError):
            tuner.step()
