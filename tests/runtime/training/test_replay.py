"""The state of a run from its bundle and its journal alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import (
    BundleError,
    RunFileError,
)
from edgezo_runtime.journal.journal import Journal, read_journal
from edgezo_runtime.training.replay import replay
from tests.runtime.tuner_runs import (
    BASE,
    run_to_the_end,
)

pytestmark = pytest.mark.usefixtures("unsynced")


def alter(path):
    """Change the last weight, and neither size nor name."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_replay_looks_at_the_trainables_it_begins_with(bundle, examples, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.root, copy)
    with Tuner.open(copy, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
    alter(copy / "trainable.safetensors")
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
