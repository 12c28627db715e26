"""The records of a run: what is refused, and what breaks off."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import (
    RunFileError,
    UsageError,
)
from edgezo_runtime.journal.journal import Journal, read_journal
from edgezo_runtime.journal.snapshot import save_snapshot
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import (
    BASE,
    SIZES,
    run_to_the_end,
    with_both_factors,
)

pytestmark = pytest.mark.usefixtures("unsynced")


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
        assert "takes them from the run) or another folder with -o" in str(caught.value)
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
