"""Where `auto` has no exact gradients: it learns feedback if bundle and rows allow."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.app import open_run
from edgezo_runtime.app.run_data import RunData
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.budget.placement import Placement
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.devices.cpu import Cpu
from edgezo_runtime.errors import NoBackwardGraphsError, UnplacedNodeError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.training.forward_only import make_as_able, settle_method
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


UNPLACED = UnplacedNodeError("node 'x' (Y)")


def ways_of(config, settle=lambda config: config, error=UNPLACED):
    """The configurations that are tried while none can be run."""
    tried = []

    def make(own):
        tried.append((own.method, own.first_order))
        raise error

    with pytest.raises(type(error)) as caught:
        make_as_able(config, settle, make)
    assert caught.value is error
    return tried


def as_feedback(config):
    return dataclasses.replace(config, method="feedback") if config.first_order == 0 else config


def test_auto_does_with_what_the_device_can_run():
    everything = [("auto", "auto"), ("feedback", 0), ("auto", 0)]
    assert ways_of(TuneConfig(), as_feedback) == everything
    assert ways_of(NONE, as_feedback) == everything[1:]
    assert ways_of(TuneConfig()) == [everything[0], everything[2]]
    lacking = NoBackwardGraphsError("none")
    assert ways_of(NONE, as_feedback, lacking) == everything[1:]


@pytest.mark.parametrize(
    "given", [{"first_order": 1}, {"method": "feedback"}, {"objective": "accuracy"}], ids=str
)
def test_what_was_asked_for_is_not_replaced(given):
    assert len(ways_of(TuneConfig(**given))) == 1


def test_why_gradients_are_missing_is_told():
    def make(config):
        if config.first_order == "auto":
            raise UnplacedNodeError("node 'x' (Y)")
        return config.method

    assert make_as_able(TuneConfig(), as_feedback, make) == ("feedback", "node 'x' (Y)")
    assert make_as_able(NONE, lambda config: config, make) == ("auto", "")


class Lacking(Cpu):
    """A GPU, played by the processor, that cannot go back through blocks."""

    name = "webgpu"
    form = "gpu"
    segments = False

    def open(self, graph):
        if graph.where.endswith(".backward.onnx") and "block" in graph.where:
            raise UnplacedNodeError(f"{graph.where}: the device cannot run node 'grad_3' (NonZero)")
        return super().open(graph)


def begin(bundle, config, folder, rows):
    data = RunData(rows)
    return open_run.open_run(
        bundle, data, config, RunFolder(folder), placement=Placement(Lacking())
    )


@pytest.mark.parametrize(("kind", "method"), [("labels", "feedback"), ("completion", "feedback")])
def test_a_backward_graph_that_a_device_cannot_run_is_done_without(
    exported, tmp_path, kind, method
):
    bundle = exported("llama").bundle("fp32").bundle
    opened = begin(bundle, TuneConfig(), tmp_path, examples(bundle.manifest, kind))
    assert opened.run.config.method == method
    (told,) = [text for text in opened.warnings if "no first-order steps" in text]
    assert "takes the method feedback: " in told
    assert "'grad_3' (NonZero)" in told
    opened.run.close()


def test_one_that_was_asked_for_is_refused_with_its_node(exported, tmp_path):
    bundle = exported("llama").bundle("fp32").bundle
    rows = examples(bundle.manifest)
    with pytest.raises(UnplacedNodeError, match=r"block_0.*'grad_3' \(NonZero\)"):
        begin(bundle, TuneConfig(first_order=1), tmp_path, rows)


def test_without_graphs_for_gpus_texts_are_estimated(exported, tmp_path):
    """The error of the last states would go back through a graph that the bundle lacks."""
    bundle = exported("llama").bundle("fp32").bundle
    gpu = dataclasses.replace(bundle.manifest.gpu, backward="operator X has no gradient")
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, gpu=gpu))
    opened = begin(bundle, TuneConfig(), tmp_path, examples(bundle.manifest, "completion"))
    assert opened.run.config.method == "auto"
    assert any("estimates gradients from losses: operator X" in text for text in opened.warnings)
    opened.run.close()
