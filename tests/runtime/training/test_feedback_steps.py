"""Runs that learn feedback: what they learn, the bits of resumed and replayed ones, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.replay import replay
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import bits, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

ROWS, PAIRS = 12, 10
CONFIG = method_config(
    "feedback", pairs=PAIRS, steps=8, batch_size=4, save_every=1000, scope="answer"
)
LEARNING = 3
"""Steps that pairs of ten rows take, four at a time."""


@pytest.fixture
def tiny(exported):
    """(bundle, rows with three classes in turn)."""
    bundle = exported("llama").bundle("fp32").bundle
    sizes = [3 + n % 5 for n in range(ROWS)]
    return bundle, random_set("labels", sizes, bundle.manifest.tokenizer.pad_id)


def sites_of(tuner):
    return tuner.run.trajectory.layout.feedback.sites


def codec_bytes(tuner) -> int:
    return tuner.run.trajectory.layout.feedback.codec.nbytes


def test_pairs_first_then_steps(tiny, tmp_path):
    bundle, rows = tiny
    with Tuner.open(bundle, rows, CONFIG, tmp_path) as tuner:
        state = tuner.run.state
        initial = bundle.trainables()
        for number in range(LEARNING):
            assert state.feedback.learning
            report = tuner.step()
            assert report.rows == 8
            for site in sites_of(tuner):
                assert not state.theta[site.name_a].any()
                assert state.theta[site.name_b].any() == (number == LEARNING - 1)
        assert state.feedback.pairs == 4 * LEARNING
        directions = {site.name_b: state.theta[site.name_b].copy() for site in sites_of(tuner)}
        while not tuner.done:
            assert tuner.step().rows == 4
        for site in sites_of(tuner):
            assert state.theta[site.name_a].any()
            np.testing.assert_array_equal(state.theta[site.name_b], directions[site.name_b])
        ours = {name for site in sites_of(tuner) for name in (site.name_a, site.name_b)}
        for name in initial.keys() - ours:
            np.testing.assert_array_equal(state.theta[name], initial[name])
        assert {site.block for site in sites_of(tuner)} == {1}  # of two blocks the late one


@pytest.mark.parametrize("end", [1, LEARNING - 1, LEARNING, LEARNING + 2])
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


def test_a_replay_needs_no_model(tiny, tmp_path, monkeypatch):
    bundle, rows = tiny
    with Tuner.open(bundle, rows, CONFIG, tmp_path) as tuner:
        while not tuner.done:
            tuner.step()
        expected = bits(tuner)
    monkeypatch.setattr("edgezo_runtime.engine.sessions.ENVIRONMENT.open", None)
    assert state_bits(replay(bundle, tmp_path / "journal.bin").state) == expected


@pytest.mark.slow
def test_norms_behind_layers_change_no_bits(exported, tmp_path, monkeypatch):
    """A resumed run and a replay know the slopes of the norms from the last pairs alone."""
    bundle = exported("gemma3_text").bundle("fp32").bundle
    sizes = [3 + n % 5 for n in range(ROWS)]
    rows = random_set("labels", sizes, bundle.manifest.tokenizer.pad_id)
    config = dataclasses.replace(CONFIG, blocks="all")
    with Tuner.open(bundle, rows, config, tmp_path / "whole") as tuner:
        assert all(site.slope is not None for site in sites_of(tuner))
        while not tuner.done:
            tuner.step()
        expected = bits(tuner)
        assert all(tuner.run.state.theta[site.name_a].any() for site in sites_of(tuner))
    for end in (LEARNING - 1, LEARNING + 2):
        folder = tmp_path / f"parts{end}"
        with Tuner.open(bundle, rows, config, folder) as tuner:
            for _ in range(end):
                tuner.step()
        with Tuner.open(bundle, rows, config, folder, resume=True) as tuner:
            while not tuner.done:
                tuner.step()
            assert bits(tuner) == expected
    monkeypatch.setattr("edgezo_runtime.engine.sessions.ENVIRONMENT.open", None)
    assert state_bits(replay(bundle, tmp_path / "whole" / "journal.bin").state) == expected


def test_the_journal_has_differences_of_logits(tiny, tmp_path):
    """Losses of both sides, then differences along the contrasts of three classes."""
    bundle, rows = tiny
    with Tuner.open(bundle, rows, CONFIG, tmp_path) as tuner:
        for _ in range(LEARNING + 1):
            tuner.step()
        path = tuner.run.folder.journal
    records = list(read_journal(path).records)
    assert [record.losses.shape for record in records] == [(4, 4)] * LEARNING + [(1, 4)]
    assert all(record.blocks == () for record in records)


def test_accuracy_has_a_gradient_as_an_expectation(tiny, tmp_path):
    """After the pairs the losses are chances of a wrong answer, and they fall."""
    bundle, rows = tiny
    config = dataclasses.replace(CONFIG, objective="accuracy", steps=30, batch_size=12)
    losses = []
    with Tuner.open(bundle, rows, config, tmp_path) as tuner:
        while not tuner.done:
            tuner.step()
        path = tuner.run.folder.journal
    losses = [record.losses[0].mean() for record in read_journal(path).records][1:]
    assert all(0 < loss < 1 for loss in losses)
    assert losses[-1] < losses[0] - 0.02


def test_records_that_do_not_fit_are_refused(tiny, tmp_path):
    bundle, rows = tiny
    with Tuner.open(bundle, rows, CONFIG, tmp_path) as tuner:
        tuner.step()
        record = next(iter(read_journal(tuner.run.folder.journal).records))
        other = dataclasses.replace(record, step=1, losses=record.losses[:3])
        with pytest.raises(RunFileError, match="pairs of 2 classes"):
            tuner.run.state.observe(other, b"")
        gradient = dataclasses.replace(record, step=1, losses=record.losses[:1])
        gradient = dataclasses.replace(gradient, extra=bytes(4 + codec_bytes(tuner)))
        with pytest.raises(RunFileError, match="step 1 has no pairs"):
            tuner.run.trajectory.apply(gradient, [])
        tuner.step()
        with pytest.raises(RunFileError, match="impossible sizes of inputs"):
            tuner.run.state.observe(dataclasses.replace(record, step=2), b"")


def test_what_feedback_cannot_do(tiny, tmp_path):
    bundle, rows = tiny
    for given, words in (
        ({"blocks": "7"}, "none of them has trainables"),
        ({"objective": "f1"}, "has no derivative by the label logits"),
        ({"objective": "exact-match"}, "has no derivative by the label logits"),
        ({"objective": "reward"}, "has no derivative by the label logits"),
        ({"objective": "accuracy", "scope": "all"}, "on texts takes loss only"),
        ({"modules": "q_proj"}, "feedback takes auto only"),
        ({"first_order": 1}, "feedback trains all its blocks itself"),
        ({"prefix_cache": False}, "set `prefix_cache` on, or choose another method"),
    ):
        config = dataclasses.replace(CONFIG, **given)
        with pytest.raises(UsageError, match=words):
            Tuner.open(bundle, rows, config, tmp_path)
