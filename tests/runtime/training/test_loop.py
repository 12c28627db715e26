"""The training loop: the order of its parts, learning rates, and losses that are not finite."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.errors import (
    DivergedError,
    UsageError,
)
from edgezo_runtime.journal.journal import read_journal
from tests.runtime.tuner_runs import (
    BASE,
    bits,
    run_to_the_end,
)

pytestmark = pytest.mark.usefixtures("unsynced")


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
        measuring = tuner.run.elapsed_s
        assert measuring == 0.5
        reports = list(tuner)
        # a step reads the clock three times; the journal has it once, for when to sync
        spent = reports[0].elapsed_s
        assert len(reports) == np.ceil((4.0 - measuring) / spent)
        assert tuner.run.elapsed_s == pytest.approx(measuring + spent * len(reports))
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
        tuner.run.theta[next(iter(tuner.run.state.slots))][0, 0] = np.inf
        with pytest.raises(DivergedError):
            tuner.step()
