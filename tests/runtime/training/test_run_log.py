"""The records of a run: what is refused, and what breaks off."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.journal import Journal, read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.snapshot import save_snapshot
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.run_log import RunLog
from edgezo_runtime.training.step_evaluator import StepEvaluator
from edgezo_runtime.training.trajectory import Trajectory
from tests.runtime.growing_runs import slice_of
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import BASE, SIZES, run_to_the_end, state_bits, with_both_factors

pytestmark = pytest.mark.usefixtures("unsynced")


RATES = Rates(0.03, 0.01, seconds=1.5)


def made(bundle: Bundle, examples: ExampleSet, folder: Path) -> tuple[RunLog, Trajectory]:
    """The log of a run in a folder, and the state that it records."""
    folder.mkdir(exist_ok=True)
    config = dataclasses.replace(BASE, method="zo-sgd")
    trajectory = Trajectory(bundle, config, len(examples))
    evaluator = StepEvaluator(Engine(bundle), examples, trajectory)
    return RunLog(RunFolder(folder), trajectory, evaluator, examples, config), trajectory


def take(log: RunLog, trajectory: Trajectory) -> StepRecord:
    """A step whose losses are made up."""
    info = trajectory.info(0.03)
    losses = np.array([[0.5], [0.25 + 0.125 * info.step]])
    record = trajectory.record(info, losses, b"", 2.0 + info.step)
    with log.recording(record):
        trajectory.replay(record)
    return record


def test_what_was_begun_and_recorded_is_resumed(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    log, trajectory = made(bundle, examples, tmp_path)
    assert log.closed
    log.begin(RATES)
    records = [take(log, trajectory) for _ in range(3)]
    log.snapshot()
    records.append(take(log, trajectory))
    log.close()
    assert log.closed
    assert list(read_journal(tmp_path / "journal.bin").records) == records
    for snapshot in (True, False):
        again, other = made(bundle, examples, tmp_path)
        if not snapshot:
            again.folder.snapshot.unlink()
        again.resume()
        assert (other.rates, other.state.step, other.state.elapsed_s) == (RATES, 4, 5.0)
        assert state_bits(other.state) == state_bits(trajectory.state)
        again.close()


def test_what_is_added_is_for_steps_that_begin_later(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    log, _ = made(bundle, examples.first(4), tmp_path)
    log.begin(RATES)
    assert len(log.examples_at(0)) == 4  # step 0 begins
    assert log.add(slice_of(examples, 4, 6)) == 6
    assert (len(log.examples), len(log.examples_at(0)), len(log.examples_at(1))) == (6, 4, 6)
    assert log.add(slice_of(examples, 6, 7)) == 7
    assert [len(log.examples_at(step)) for step in (0, 1, 2)] == [4, 6, 7]
    log.close()
    with pytest.raises(UsageError, match="the tuner is closed"):
        log.add(slice_of(examples, 7, 8))
    again, _ = made(bundle, examples.first(4), tmp_path)
    assert len(again.examples) == 4
    again.recall()
    assert len(again.examples) == 7
    assert again.closed


def test_a_log_that_is_closed_records_nothing(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    log, trajectory = made(bundle, examples, tmp_path)
    log.sync()
    log.close()
    with pytest.raises(UsageError, match="the tuner is closed"):
        log.snapshot()
    with pytest.raises(UsageError, match="the tuner is closed"):
        take(log, trajectory)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "closed"), [(MemoryError, False), (ValueError, True)])
def test_an_update_that_fails_closes_the_log_unless_memory_was_refused(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path, error: type[Exception], closed: bool
) -> None:
    log, trajectory = made(bundle, examples, tmp_path)
    log.begin(RATES)
    info = trajectory.info(0.03)
    record = trajectory.record(info, np.array([[0.5], [0.25]]), b"", 2.0)
    with pytest.raises(error), log.recording(record):
        raise error
    assert log.closed == closed
    log.close()
    assert list(read_journal(tmp_path / "journal.bin").records) == [record]


def test_a_run_whose_folder_is_removed_ends_with_a_word(bundle, examples, tmp_path):
    tuner = Tuner.open(bundle, examples, BASE, tmp_path / "run")
    tuner.step()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunFileError, match=r"journal .* was removed while the run went on"):
        tuner.close()
    assert tuner.status.phase == "closed"
    tuner = Tuner.open(bundle, examples, BASE, tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunFileError, match="removed"):
        tuner.snapshot()
    with pytest.raises(RunFileError, match="removed"):
        tuner.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError, RunFileError])
@pytest.mark.parametrize("where", ["append", "apply"])
def test_a_step_that_breaks_off_is_not_recorded_twice(
    bundle, examples, tmp_path, monkeypatch, where, error
):
    """Pins a tuner that went on when a step was in its journal and not in its state."""
    expected = run_to_the_end(bundle, examples, BASE, tmp_path / "whole")
    with Tuner.open(bundle, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
        owner = {"append": tuner.run.log._journal, "apply": tuner.run.trajectory}[where]
        done = getattr(owner, where)

        def broken(*args: object) -> None:
            done(*args)
            raise error("in between")

        monkeypatch.setattr(owner, where, broken)
        with pytest.raises(error, match="in between"):
            tuner.step()
        with pytest.raises(UsageError, match="the tuner is closed"):
            tuner.step()
    assert run_to_the_end(bundle, examples, BASE, tmp_path / "run") == expected
    steps = [record.step for record in read_journal(tmp_path / "run/journal.bin").records]
    assert steps == list(range(6))


def test_a_journal_with_a_step_twice_is_refused(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        tuner.step()
        tuner.step()
        tuner.snapshot()
    records = list(read_journal(tmp_path / "journal.bin").records)
    with Journal.open(tmp_path / "journal.bin") as journal:
        journal.append(records[1])
    with pytest.raises(RunFileError, match="step 1 where step 2 should be"):
        Tuner.open(bundle, examples, BASE, tmp_path)


def test_whole_numbers_and_floats_are_the_same_settings(bundle, examples, tmp_path):
    whole = dataclasses.replace(BASE, clip=1, average=0)
    with Tuner.open(bundle, examples, whole, tmp_path) as tuner:
        tuner.step()
        tuner.snapshot()
    real = dataclasses.replace(BASE, clip=1.0, average=0.0)
    with Tuner.open(bundle, examples, real, tmp_path) as tuner:
        assert tuner.step_number == 1


@pytest.mark.slow
def test_a_run_of_other_inputs_is_refused(bundle, examples, tmp_path):
    run_to_the_end(bundle, examples, BASE, tmp_path / "run")
    other_data = random_set("labels", SIZES, examples.pad_id, seed=1)
    fewer = random_set("labels", SIZES[:5], examples.pad_id)
    both = with_both_factors(bundle, tmp_path / "ab")
    manifest = both.manifest
    files = dict(manifest.files)
    name = next(iter(files))
    files[name] = dataclasses.replace(files[name], sha256="f" * 64)
    altered = Bundle(both.root, dataclasses.replace(manifest, files=files), trusted=True)
    for inputs, message in (
        ((bundle, examples, dataclasses.replace(BASE, lr=0.5)), r"config\.lr was 0\.03, is 0\.5"),
        ((bundle, examples, dataclasses.replace(BASE, seed=1)), r"config\.seed was 0, is 1"),
        ((bundle, other_data, BASE), "data was '0000.*is '0000"),
        ((bundle, fewer, BASE), "rows was 8, is 5"),
        ((altered, examples, BASE), rf"bundle\.{name} was '.*is 'fff"),
    ):
        with pytest.raises(RunFileError, match=message) as caught:
            Tuner.open(*inputs, tmp_path / "run", resume=True)
        assert "use the same inputs, or choose another folder" in str(caught.value)
    relaxed = dataclasses.replace(BASE, save_every=3)  # changes nothing that is computed
    Tuner.open(bundle, examples, relaxed, tmp_path / "run", resume=True).close()


def test_a_snapshot_of_other_shapes_is_refused_before_it_is_read(
    bundle, examples, tmp_path, monkeypatch
):
    """A hundred gigabytes would have been asked for first."""
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        tuner.step()
        kept = tuner.run.state.snapshot(tuner.run.log._header().digest())
    name = min(kept.theta)
    theta = {**kept.theta, name: np.zeros((3, 3), np.float32)}
    save_snapshot(tuner.run.folder.snapshot, dataclasses.replace(kept, theta=theta))
    monkeypatch.setattr(
        "edgezo_runtime.journal.snapshot.read_tensors", lambda *_: pytest.fail("was read")
    )
    with pytest.raises(RunFileError, match=r"\(3, 3\), in this run .*remove it; the journal"):
        Tuner.open(bundle, examples, BASE, tmp_path)
