"""Runs of `feedback` on texts: the sites, the bits of resumed and replayed runs, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.carried_layout import carried_count, carried_sites, carries_error
from edgezo_runtime.training.replay import replay
from tests.runtime.growing_runs import slice_of
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import bits, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

CONFIG = method_config("feedback", steps=6, batch_size=4, save_every=1000, lr=0.01)
SITE = "model.layers.1.mlp.down_proj.lora_B"


@pytest.fixture
def tiny(exported):
    """(bundle, texts)."""
    bundle = exported("llama").bundle("fp32").bundle
    sizes = [8 + n % 5 for n in range(12)]
    return bundle, random_set("completion", sizes, bundle.manifest.tokenizer.pad_id)


def test_which_runs_carry_the_error():
    assert carries_error(CONFIG, "completion", "all")
    assert carries_error(CONFIG, "candidates", "answer")
    assert carries_error(CONFIG, "labels", "all")
    assert not carries_error(CONFIG, "labels", "answer")
    assert not carries_error(method_config("zo-sgd"), "completion", "all")


def test_the_sites_are_late_and_train_what_the_bundle_trains(tiny):
    bundle, _ = tiny
    found = carried_sites(bundle.manifest, CONFIG)
    assert list(found) == [1]
    assert found[1][-1].trains == {SITE}
    assert [site.last for site in found[1]] == [False] * (len(found[1]) - 1) + [True]
    assert found[1][-1].scale == bundle.manifest.scheme.scale
    assert carried_count(bundle.manifest, CONFIG) == 1
    every = dataclasses.replace(CONFIG, blocks="all")
    assert list(carried_sites(bundle.manifest, every)) == [0, 1]
    assert carried_count(bundle.manifest, every) == 2


@pytest.mark.parametrize("kind", ["completion", "candidates"])
def test_it_learns(tiny, tmp_path, kind):
    bundle, _ = tiny
    examples = random_set(kind, [8, 9, 8, 11], bundle.manifest.tokenizer.pad_id)
    config = dataclasses.replace(CONFIG, steps=30, blocks="all")
    initial = bundle.trainables()
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        first = tuner.step()
        assert first.rows == len(examples) * examples.sequences_per_example
        while not tuner.done:
            last = tuner.step()
        assert last.loss < first.loss - 0.05
        theta = tuner.run.state.theta
        moved = {name for name in theta if not np.array_equal(theta[name], initial[name])}
        sites = [site for own in tuner.run.trajectory.layout.carried.values() for site in own]
    assert moved == {site.name_b for site in sites}
    assert SITE in moved


@pytest.mark.parametrize("end", [1, 4])
@pytest.mark.parametrize("save_every", [1, 1000], ids=["snapshot", "journal"])
def test_a_resumed_run_has_the_bits_of_a_whole_one(tiny, tmp_path, end, save_every):
    bundle, rows = tiny
    config = dataclasses.replace(CONFIG, blocks="all", save_every=save_every)
    with Tuner.open(bundle, rows, config, tmp_path / "whole") as tuner:
        while not tuner.done:
            tuner.step()
        expected = bits(tuner)
    with Tuner.open(bundle, rows, config, tmp_path / "parts") as tuner:
        for _ in range(end):
            tuner.step()
    with Tuner.open(bundle, rows, config, tmp_path / "parts", resume=True) as tuner:
        assert tuner.step_number == end
        while not tuner.done:
            tuner.step()
        assert bits(tuner) == expected


@pytest.mark.parametrize("save_every", [1, 1000], ids=["snapshot", "journal"])
def test_a_run_resumes_after_rows_were_added(tiny, tmp_path, save_every):
    """Mean derivatives are learned again from the rows that the run began with."""
    bundle, rows = tiny
    config = dataclasses.replace(CONFIG, blocks="all", save_every=save_every)
    with Tuner.open(bundle, rows.first(8), config, tmp_path / "whole") as tuner:
        tuner.step()
        tuner.add(slice_of(rows, 8, 12))
        while not tuner.done:
            tuner.step()
        expected = bits(tuner)
    with Tuner.open(bundle, rows.first(8), config, tmp_path / "parts") as tuner:
        tuner.step()
        tuner.add(slice_of(rows, 8, 12))
        tuner.step()
    with Tuner.open(bundle, rows.first(8), config, tmp_path / "parts", resume=True) as tuner:
        assert len(tuner.examples) == 12
        while not tuner.done:
            tuner.step()
        assert bits(tuner) == expected


def test_a_replay_needs_no_model(tiny, tmp_path, monkeypatch):
    bundle, rows = tiny
    with Tuner.open(bundle, rows, CONFIG, tmp_path) as tuner:
        while not tuner.done:
            tuner.step()
        expected = bits(tuner)
    monkeypatch.setattr("edgezo_runtime.engine.sessions.ENVIRONMENT.open", None)
    assert state_bits(replay(bundle, tmp_path / "journal.bin").state) == expected


def test_blocks_without_sites_are_refused(tiny, tmp_path):
    bundle, rows = tiny
    with pytest.raises(UsageError, match="none of them has trainables"):
        Tuner.open(bundle, rows, dataclasses.replace(CONFIG, blocks="7"), tmp_path)


def test_an_initial_adapter_is_refused(tiny, tmp_path):
    bundle, rows = tiny
    start = make_adapter(
        tmp_path / "start", bundle, bundle.trainables(), steps=1, created_by="test", scope="all"
    )
    start.save(tmp_path / "start")
    with pytest.raises(UsageError, match="`adapter`: feedback begins with adapters of its own"):
        Tuner.open(bundle, rows, CONFIG, tmp_path / "run", adapter=str(tmp_path / "start"))


def test_bundles_without_the_error_are_refused(tiny):
    bundle, _ = tiny
    bare = dataclasses.replace(bundle.manifest, backward="Sigma has no derivative")
    with pytest.raises(UsageError, match="no graph for the error at its last states: Sigma"):
        carried_sites(bare, CONFIG)
