"""Backward graphs take what forward graphs took, and give derivatives by input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.bundle.manifest_types import GRAD, grad_name
from edgezo_runtime.engine.backward import BackwardGraph, BackwardGraphs
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.sessions import run_graph
from edgezo_runtime.errors import BundleError


class Session:
    """Gradients of y = x w by x and by w, from what it is fed."""

    def run_with_ort_values(self, outputs: Any, feed: Any, options: Any) -> Any:
        assert outputs == [grad_name("x"), grad_name("w")]
        assert feed.keys() == {"x", "w", GRAD}
        made = (feed[GRAD] * feed["w"], feed[GRAD] * feed["x"])
        return list(made)


def graph_of(*inputs: str) -> BackwardGraph:
    session: Any = Session()
    return BackwardGraph(session, inputs, (grad_name("x"), grad_name("w")))


FORWARD: Any = SimpleNamespace(weights={"w": np.float32(3)}, output="y")


def test_gradients_come_by_the_names_of_inputs() -> None:
    feed = {"x": np.float32(2), "more": np.float32(9)}
    found = graph_of("x", "w", GRAD).run(FORWARD, feed, np.float32(5))
    assert found == {"x": 15, "w": 10}


def test_a_missing_input_is_the_bundles_fault() -> None:
    with pytest.raises(BundleError, match="back through 'y' takes 'mask', which is missing"):
        graph_of("x", "w", "mask", GRAD).run(FORWARD, {"x": np.float32(2)}, np.float32(5))


def test_the_way_back_through_the_scorer_is_its_derivative(bundle) -> None:
    """Against central differences of the forward graph along one direction."""
    model = Engine(bundle).model
    info = bundle.manifest.graphs.score_labels
    scorer, back = model.scorer(info), BackwardGraphs(model).through(info.file)
    generator = np.random.default_rng(0)
    width = bundle.manifest.model.hidden_size
    hidden, along = (generator.normal(size=(2, 3, width)).astype(np.float32) for _ in range(2))
    slope = generator.normal(size=(2, 3)).astype(np.float32)
    fixed = {
        "positions": model.value(np.array([[0, 2], [1, 1]])),
        "label_ids": model.value(np.array([5, 6, 7])),
    }

    def value(states: np.ndarray) -> float:
        feed = {**scorer.weights, **fixed, "hidden": model.value(states)}
        (scores,) = run_graph(scorer.session, [scorer.output], feed)
        return float((scores.numpy().astype(np.float64) * slope).sum())

    step = np.float32(1e-2)
    expected = (value(hidden + step * along) - value(hidden - step * along)) / (2 * float(step))
    feed = fixed | {"hidden": model.value(hidden)}
    found = model.array(back.run(scorer, feed, model.value(slope))["hidden"])
    assert float((found.astype(np.float64) * along).sum()) == pytest.approx(expected, rel=1e-2)
    scored = np.zeros((2, 3), bool)
    scored[0, 2] = scored[1, 1] = True
    assert not found[~scored].any()  # other positions have no part in the scores
