"""The directions of a step: made once per tensor, and around the anchor where there is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.training.step_directions import StepDirections

THETA = {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}
ANCHOR = np.full(3, 0.5, np.float32)


def directions(made: list[str]) -> StepDirections:
    def frame(name: str) -> Frame:
        made.append(name)
        return Frame(THETA[name].shape)

    slots = {"a": {"anchor": ANCHOR}, "b": None}
    state: Any = SimpleNamespace(theta=THETA, slots=slots, frame=frame)
    return StepDirections(state)


def test_a_frame_is_made_when_it_is_needed_and_once() -> None:
    made: list[str] = []
    found = directions(made)
    assert made == []
    assert found.frame("a") is found.frame("a")
    found.frame("b")
    assert made == ["a", "b"]


def test_probes_are_around_the_trainable_or_its_anchor() -> None:
    found = directions([])
    assert found.base("a", anchored=False) is THETA["a"]
    assert found.base("a", anchored=True) is ANCHOR
    assert found.theta is THETA
    with pytest.raises(UsageError, match=r"'b': .* no anchor"):
        found.base("b", anchored=True)
