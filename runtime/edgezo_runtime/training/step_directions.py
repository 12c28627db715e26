"""The directions of one step, by tensor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.training.training_state import TrainingState

Float32 = npt.NDArray[np.float32]


class StepDirections:
    """The frames of one step, each made when it is first needed.

    Args:
        state: before the step; must not be updated while probes use this object.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._frames: dict[str, Frame] = {}

    def frame(self, name: str) -> Frame:
        """The directions of a tensor. Two threads may make the same frame; one is cached."""
        made = self._frames.get(name)
        return self._frames.setdefault(name, self._state.frame(name)) if made is None else made

    @property
    def theta(self) -> Mapping[str, Float32]:
        """The trainables."""
        return self._state.theta

    def base(self, name: str, *, anchored: bool) -> Float32:
        """The trainable that probes perturb, or the anchor that the rule stores for it.

        Raises:
            UsageError: the rule has no anchor.
        """
        if not anchored:
            return self._state.theta[name]
        slot = self._state.slots[name]
        if slot is None or "anchor" not in slot:
            raise UsageError(f"'{name}': a probe is around an anchor, but the rule has no anchor")
        return slot["anchor"]
