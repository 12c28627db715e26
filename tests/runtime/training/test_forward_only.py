"""Where `auto` has no exact gradients: it learns feedback if bundle and rows allow."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.app import open_run
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.training.forward_only import settle_method
from tests.runtime.tiny_sets import random_set

SIZES = (5, 7, 4, 6)
NONE = TuneConfig(first_order=0)


@pytest.fixture
def manifest(exported):
    return exported("llama").bundle("fp32").bundle.manifest


def without_backward(manifest):
    return dataclasses.replace(manifest, backward="an operator has no derivative")


def examples(manifest, kind="labels"):
    return random_set(kind, SIZES, manifest.tokenizer.pad_id)


def test_it_keeps_exact_gradients(manifest):
    config = TuneConfig()
    assert settle_method(config, manifest, examples(manifest)) is config


@pytest.mark.parametrize("scope", ["answer", "all"])
def test_without_first_order_steps_it_learns_feedback(manifest, scope):
    config = dataclasses.replace(NONE, scope=scope)
    found = settle_method(config, manifest, examples(manifest))
    assert found == dataclasses.replace(config, method="feedback", normalize=False, clip=0.0)


def test_without_backward_graphs_label_words_learn_feedback(manifest):
    own = without_backward(manifest)
    found = settle_method(TuneConfig(scope="answer"), own, examples(manifest))
    assert (found.method, found.first_order) == ("feedback", "auto")


def test_texts_need_the_backward_graph_of_their_scorer(manifest):
    own = without_backward(manifest)
    config = TuneConfig()
    assert settle_method(config, own, examples(manifest, "completion")) is config
    found = settle_method(NONE, manifest, examples(manifest, "completion"))
    assert found.method == "feedback"


@pytest.mark.parametrize(
    "given",
    [
        {"method": "zo-sgd"},
        {"lr": 0.1},
        {"eps": 0.1},
        {"objective": "accuracy"},
        {"modules": "down_proj"},
        {"schedule": "last:1"},
        {"noise": "gaussian"},
        {"prefix_cache": False},
        {"rule": "adam"},
    ],
    ids=str,
)
def test_settings_of_estimates_keep_them(manifest, given):
    config = dataclasses.replace(NONE, scope="answer", **given)
    assert settle_method(config, manifest, examples(manifest)) is config


def test_bundles_without_sites_and_runs_from_an_adapter_estimate(manifest):
    rows = examples(manifest)
    scheme = dataclasses.replace(manifest.scheme, kind="bitfit")
    other = dataclasses.replace(manifest, scheme=scheme)
    config = dataclasses.replace(NONE, scope="answer")
    assert settle_method(config, other, rows) is config
    assert settle_method(config, manifest, rows, adapter=True) is config


@pytest.mark.usefixtures("unsynced")
def test_such_a_run_resumes(exported, tmp_path):
    bundle = exported("llama").bundle("fp32").bundle
    config = TuneConfig(first_order=0, scope="answer", steps=3, batch_size=2)
    rows = examples(bundle.manifest)
    with Tuner.open(bundle, rows, config, tmp_path) as tuner:
        tuner.step()
        assert tuner.run.trajectory.layout.feedback is not None
    with Tuner.open(bundle, rows, config, tmp_path) as tuner:
        assert tuner.step_number == 1
        tuner.step()


@pytest.mark.usefixtures("unsynced")
def test_a_run_that_was_begun_with_estimates_goes_on_with_them(exported, tmp_path, monkeypatch):
    bundle = exported("llama").bundle("fp32").bundle
    config = TuneConfig(first_order=0, scope="answer", steps=3, batch_size=2)
    rows = examples(bundle.manifest)
    with monkeypatch.context() as patched:
        patched.setattr(open_run, "settle_method", lambda config, *_, **__: config)
        with Tuner.open(bundle, rows, config, tmp_path) as tuner:
            tuner.step()
    with Tuner.open(bundle, rows, config, tmp_path) as tuner:
        assert tuner.step_number == 1
        assert tuner.run.trajectory.layout.feedback is None
        tuner.step()
