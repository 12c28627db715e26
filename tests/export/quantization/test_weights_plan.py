"""Plans of weights files: contradictions are refused, places are aligned."""

from __future__ import annotations

import pytest

from edgezo_export.quantization.weights_file import write_weights
from edgezo_export.quantization.weights_plan import (
    PlannedTensor,
    check_shapes,
    layout,
    steps,
)
from edgezo_runtime.errors import EdgezoError
from tests.export.planned_weights import PLAN, checkpoint


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([PLAN[0]], "scales are not in the plan"),
        ([PLAN[1]], "without a quantized tensor"),
        ([PLAN[2], PLAN[2]], "taken"),
        ([PlannedTensor("__x", "F32", (32,), ("norm",), "plain", False)], "reserved"),
        ([PlannedTensor("x", "I8", (32,), ("norm",), "plain", False)], "plain is F32"),
        ([PlannedTensor("x", "F32", (0,), ("norm",), "plain", False)], "shape"),
    ],
)
def test_a_plan_that_contradicts_itself(tmp_path, plan, message):
    with pytest.raises(ValueError, match=message):
        write_weights(tmp_path / "w", plan, checkpoint())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "entry",
    [
        PlannedTensor("x", "F32", (33,), ("norm",), "plain", False),
        PlannedTensor("x", "F32", (48, 32), ("q",), "plain", True),
        PlannedTensor("x", "F32", (64, 32), ("q", "k"), "concat", True),
        PlannedTensor("x", "F32", (32, 128), ("conv1d", "q"), "concat", False),
        PlannedTensor("x", "F32", (32,), ("norm", "norm"), "plain", False),
        PlannedTensor("x", "F32", (32,), ("norm", "q"), "concat", True),
    ],
)
def test_a_shape_that_differs_is_refused(tmp_path, entry):
    with pytest.raises(EdgezoError, match=r"config.json asks for .* and the checkpoint has"):
        write_weights(tmp_path / "w", [entry], checkpoint())


def test_layout_refuses_nothing_that_safetensors_accepts():
    start, places = layout(PLAN)
    assert len(start) % 4096 == 0
    assert start[8:9] == b"{"
    assert min(place.offset for place in places.values()) == len(start)


def test_every_quantized_tensor_goes_with_its_scales():
    pairs = {entry.name: [part.name for part in parts] for entry, parts in steps(PLAN)}
    assert pairs == {
        "e": ["e.scale"],
        "n": [],
        "qkv": ["qkv.scale"],
        "qk.bias": [],
        "qk": [],
        "q.t": [],
        "q.same": [],
        "c": ["c.scale"],
        "c.plain": [],
        "s": [],
        "q4": ["m4.multiplier", "m4.scale"],
        "q8": ["q8.scale"],
        "half": [],
        "n.half": [],
    }


def test_every_shape_of_the_plan_is_that_of_its_sources():
    for entry, _ in steps(PLAN):
        check_shapes(entry, checkpoint())
