"""How a rule moves one tensor, in the coordinates of a frame or in those of the tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgezo_runtime.methods.rules import FrameRule, Rule
from edgezo_runtime.methods.rules.rule import Slot
from edgezo_runtime.methods.samplers import Frame

Float32 = npt.NDArray[np.float32]
Move = Callable[[Frame, Float32, Float32, Slot, int, float], Slot]
"""Moves theta by a gradient in the coordinates of a frame: frame, theta, coords, slot, step, lr."""


def init_slot(rule: Rule | FrameRule, theta: Float32, frame: Callable[[], Frame]) -> Slot:
    """Make a rule's state for a tensor.

    Args:
        rule: the rule.
        theta: the tensor.
        frame: makes the directions of its first step.
    """
    return rule.init_in(frame()) if isinstance(rule, FrameRule) else rule.init(theta)


def mover(rule: Rule | FrameRule) -> Move:
    """How a rule moves a tensor by a gradient in the coordinates of a frame.

    It is chosen once per run: to check whether an object follows a protocol takes as long as a
    small update.
    """
    if isinstance(rule, FrameRule):
        return rule.apply_in

    def move(
        frame: Frame, theta: Float32, coords: Float32, slot: Slot, step: int, lr: float
    ) -> Slot:
        return rule.apply(theta, frame.lift(coords[None])[0], slot, step, lr)

    return move
