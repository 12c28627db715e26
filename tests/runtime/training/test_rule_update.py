"""How a rule moves a tensor: in its own coordinates, or in those of a frame."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.methods.rules import Adam, FactorMomentum, Sgd
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.training.rule_update import init_slot, mover


def test_a_plain_rule_moves_by_the_lifted_gradient() -> None:
    theta = np.array([1.0, 2.0, 3.0], np.float32)
    coords = np.array([0.5, -1.0, 0.0], np.float32)
    slot = mover(Sgd())(Frame((3,)), theta, coords, None, 0, 0.1)
    assert slot is None
    np.testing.assert_allclose(theta, [0.95, 2.1, 3.0], rtol=1e-6)


def test_a_plain_rule_begins_without_a_frame() -> None:
    theta = np.zeros(3, np.float32)
    slot = init_slot(Adam(), theta, lambda: pytest.fail("a frame was made"))
    expected = Adam().init(theta)
    assert slot is not None
    assert expected is not None
    assert {name: part.tolist() for name, part in slot.items()} == {
        name: part.tolist() for name, part in expected.items()
    }


def test_a_frame_rule_begins_in_its_frame() -> None:
    made: list[int] = []

    def frame() -> Frame:
        made.append(1)
        return Frame((3,))

    rule = FactorMomentum()
    slot = init_slot(rule, np.zeros(3, np.float32), frame)
    assert made == [1]
    assert mover(rule) == rule.apply_in
    assert slot is None or all(not part.any() for part in slot.values())
