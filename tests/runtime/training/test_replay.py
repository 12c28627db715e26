"""The state of a run from its bundle and its journal alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import BundleError, RunFileError
from edgezo_runtime.journal.journal import Journal, read_journal
from edgezo_runtime.training.replay import replay
from tests.runtime.tuner_runs import BASE, FIRST_ORDER, alter_last_byte, run_to_the_end, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.mark.parametrize("config", [BASE, FIRST_ORDER], ids=["estimates", "first order"])
@pytest.mark.parametrize("cut", [0, 1])
def test_the_journal_alone_comes_to_the_state_of_the_run(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path, config: TuneConfig, cut: int
) -> None:
    """Up to the last whole record."""
    journal = tmp_path / "journal.bin"
    states, sizes = [], []
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        for _ in tuner:
            states.append(state_bits(tuner.run.state))
            tuner.run.sync()
            sizes.append(journal.stat().st_size)
    for path in tmp_path.iterdir():
        if path != journal:
            path.unlink()
    os.truncate(journal, journal.stat().st_size - cut)
    size = journal.stat().st_size
    found = replay(bundle, journal)
    assert found.state.step == 6 - cut
    assert state_bits(found.state) == states[5 - cut]
    assert found.header.config.identity() == config.identity()
    assert found.header.rows == len(examples)
    assert found.incomplete_bytes == size - sizes[5 - cut]
    assert journal.stat().st_size == size  # only read


def test_the_journal_of_another_bundle_is_refused(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    run_to_the_end(bundle, examples, BASE, tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(bundle.root, other)
    manifest = other / "manifest.json"
    digest = bundle.manifest.files["trainable.safetensors"].sha256
    manifest.write_text(manifest.read_text().replace(digest, "0" * 64))
    with pytest.raises(RunFileError, match=r"not of the bundle .*trainable\.safetensors"):
        replay(Bundle.open(other, verify=False), tmp_path / "run" / "journal.bin")


def test_replay_looks_at_the_trainables_it_begins_with(bundle, examples, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.root, copy)
    with Tuner.open(copy, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
    alter_last_byte(copy / "trainable.safetensors")
    with pytest.raises(BundleError, match=r"trainable.safetensors: sha256"):
        replay(Bundle.open(copy), tuner.run.folder.journal)


def test_a_header_of_something_else_is_refused(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    run_to_the_end(bundle, examples, BASE, tmp_path)
    meta = dict(read_journal(tmp_path / "journal.bin").header.meta)
    for number, (change, text) in enumerate(
        (
            ({"rows": 0}, "has 0 rows"),
            ({"rows": "8"}, "expected int"),
            ({"config": {**meta["config"], "method": "none"}}, "`method` none"),
            ({"config": {**meta["config"], "eps": -1.0}}, "`eps` -1.0"),
            ({"rates": {**meta["rates"], "lr": 0}}, "lr 0.0: must be 1e-30 to 1e\\+30"),
            ({"rates": {**meta["rates"], "tail": 99}}, r"first.order`? 99: the model has 2 blocks"),
            ({"bundle": {"weights": "0" * 64}}, "not of the bundle"),
            ({"more": 1}, "unknown key"),
        )
    ):
        path = tmp_path / f"{number}.bin"
        Journal.create(path, {**meta, **change}).close()
        with pytest.raises(RunFileError, match=text):
            replay(bundle, path)
