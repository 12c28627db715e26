"""The state of a run and the steps of its records; records that are whole, and none of this run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.trajectory import Trajectory
from tests.runtime.growing_runs import BEGINNING, CONFIG, grow
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import BASE, FIRST_ORDER, SIZES, run_to_the_end, state_bits

CONFIGS = {
    "shared": method_config("zo-sgd", lr=0.01, eps=0.01, blocks="0", steps=2, batch_size=2),
    "private": method_config("auto", first_order=0, lr=0.01, eps=0.01, steps=2, batch_size=2),
    "several": method_config("zo-sgd-cons", lr=0.01, eps=0.01, steps=2, batch_size=2),
    "exact": method_config("auto", first_order=2, first_order_lr=0.01, steps=2, batch_size=2),
}


def recorded(bundle: Bundle, kind: str, folder: Path) -> list[StepRecord]:
    """Those of a short run."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    run_to_the_end(bundle, examples, CONFIGS[kind], folder)
    return list(read_journal(folder / "journal.bin").records)


CHANGES: dict[str, dict[str, Any]] = {
    "has another seed": {"seed": 1},
    "follows step 0": {"step": 5},
    "not finite": {"lr": np.nan},
    "does not estimate for": {"blocks": (0, 1, 7)},
}


@pytest.mark.parametrize("kind", ["shared", "private", "several"])
def test_records_that_do_not_fit_are_refused(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    first, second = recorded(bundle, kind, tmp_path)
    probes, rows = second.losses.shape
    wrong = {
        "not finite": [np.full((probes, rows), np.inf)],
        "losses of": [
            np.ones((probes, rows + 1)),
            np.ones((probes + 1, rows)),
            np.ones((1, rows)),
        ],
    }
    cases = [(text, dataclasses.replace(second, **change)) for text, change in CHANGES.items()]
    for text, losses in wrong.items():
        cases += [(text, dataclasses.replace(second, losses=value)) for value in losses]
    for text, record in cases:
        trajectory = Trajectory(bundle, CONFIGS[kind], len(SIZES))
        trajectory.replay(first)
        before = {name: value.copy() for name, value in trajectory.state.theta.items()}
        with pytest.raises(RunFileError, match=text):
            trajectory.replay(record)
        for name, value in trajectory.state.theta.items():
            np.testing.assert_array_equal(value, before[name])


def test_a_gradient_of_another_length_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    first, second = recorded(bundle, "exact", tmp_path)
    trajectory = Trajectory(bundle, CONFIGS["exact"], len(SIZES))
    trajectory.replay(first)
    with pytest.raises(RunFileError, match="bytes in the journal, expected"):
        trajectory.replay(dataclasses.replace(second, extra=second.extra[:-1]))


def test_a_step_is_told_the_rate_that_the_journal_stores(bundle: Bundle) -> None:
    trajectory = Trajectory(bundle, BASE, 8)
    info = trajectory.info(0.1)
    assert info.lr == float(np.float32(0.1)) != 0.1
    assert (info.step, info.blocks, info.seed) == (0, (0, 1), derive_seed(0, "step", 0))


def test_recorded_steps_come_to_the_state_of_the_run(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    for name, config in {"estimates": BASE, "exact": FIRST_ORDER}.items():
        expected = run_to_the_end(bundle, examples, config, tmp_path / name)
        trajectory = Trajectory(bundle, config, len(examples))
        for record in read_journal(tmp_path / name / "journal.bin").records:
            trajectory.replay(record)
        assert state_bits(trajectory.state) == expected
        trajectory.begin()
        for tensor, value in bundle.trainables().items():
            np.testing.assert_array_equal(trajectory.state.theta[tensor], value)
        assert trajectory.state.step == 0


def test_a_record_says_how_many_examples_there_were(bundle: Bundle) -> None:
    trajectory = Trajectory(bundle, BASE, 8)
    plain = trajectory.record(trajectory.info(0.1), np.ones((2, 1)), b"", 1.5)
    assert not trajectory.see_rows(plain)
    trajectory.layout.grow(9)
    grown = trajectory.record(trajectory.info(0.1), np.ones((2, 1)), b"", 1.5)
    assert len(grown.extra) == len(plain.extra) + 1
    other = Trajectory(bundle, BASE, 8)
    assert other.see_rows(grown)
    assert other.layout.rows == 9
    with pytest.raises(RunFileError, match="step 0 has 8 examples, the step before 9"):
        other.see_rows(plain)


def test_a_run_begins_from_copies(bundle: Bundle) -> None:
    start = {name: value + 1 for name, value in bundle.trainables().items()}
    trajectory = Trajectory(bundle, BASE, 8, start)
    for value in trajectory.state.theta.values():
        value[:] = 0
    for name, value in trajectory.initial().items():
        np.testing.assert_array_equal(value, start[name])


def test_only_auto_drops_first_order_steps_and_only_before_they_are_fixed(bundle: Bundle) -> None:
    auto = Trajectory(bundle, TuneConfig(steps=2), 8)
    assert auto.rates.num_first_order == 2
    assert auto.drop_first_order()
    assert (auto.rates.num_first_order, auto.layout.first_order) == (0, None)
    assert not auto.drop_first_order()
    assert not Trajectory(bundle, FIRST_ORDER, 8).drop_first_order()
    kept = Trajectory(bundle, TuneConfig(steps=2), 8)
    kept.use(Rates(1.0, 1.0, num_first_order=1))
    assert kept.rates.num_first_order == 1
    assert kept.layout.blocks == [0]
    assert not kept.drop_first_order()


GROWING = method_config("zo-sgd", lr=0.01, eps=0.01, blocks="all", scope="all", **CONFIG)


def test_records_with_fewer_examples_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    grow(bundle, GROWING, tmp_path)
    records = list(read_journal(tmp_path / "journal.bin").records)
    fresh = Trajectory(bundle, GROWING, BEGINNING)

    def with_rows(record: StepRecord, extra: bytes) -> StepRecord:
        return dataclasses.replace(record, extra=record.extra[:4] + extra)

    fresh.replay(records[0])
    for extra, message in (
        (b"\x03", "3 examples, the step before 4"),
        (b"\xff\xff\xff\xff\xff\xff\x01", "examples"),
        (b"\x80", "count of examples is damaged"),
        (b"\x05\x05", "bytes too many"),
    ):
        with pytest.raises(RunFileError, match=message):
            fresh.replay(with_rows(records[1], extra))
