"""What every rule is: how one tensor follows its gradient."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.samplers.frame import Frame

Float32Array = npt.NDArray[np.float32]
Slot = dict[str, npt.NDArray[Any]] | None


class Rule(Protocol):
    """The update of one tensor; elementwise float32 arithmetic, so the same bits everywhere."""

    def init(self, theta: Float32Array) -> Slot:
        """Make the state the rule keeps for a tensor.

        Args:
            theta: the tensor; only its shape is used.

        Returns:
            Named arrays, as a snapshot stores them, or None for a rule without state.
        """
        ...

    def apply(self, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float) -> Slot:
        """Write the next theta in place.

        Args:
            theta: the tensor, float32.
            g: its gradient estimate, same shape; not written to.
            slot: what `init` or the last `apply` returned; its arrays are reused.
            step: the step of the run, from 0. A tensor whose block rests takes no part in a step.
            lr: learning rate of this step, a value float32 holds exactly, as the journal keeps it.

        Returns:
            The slot for the next call.
        """
        ...


@runtime_checkable
class FrameRule(Protocol):
    """An update that works in the coordinates of the step's directions."""

    def init_in(self, frame: Frame) -> Slot:
        """Make the state for a tensor whose first frame this is."""
        ...

    def apply_in(
        self, frame: Frame, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float
    ) -> Slot:
        """Write the next theta in place; as `Rule.apply`, with g (coords) in the frame."""
        ...


def require_slot(slot: Slot, *keys: str) -> dict[str, npt.NDArray[Any]]:
    """Check that a slot is one this rule made.

    Args:
        slot: the state of a tensor.
        keys: the names the rule keeps.

    Returns:
        The slot, not None.

    Raises:
        UsageError: the slot has other names, as after loading the snapshot of another rule.
    """
    if slot is None or set(slot) != set(keys):
        found = "nothing" if slot is None else ", ".join(sorted(slot))
        raise UsageError(f"the rule keeps {', '.join(keys)}, the slot holds {found}")
    return slot


def require_decay(name: str, value: float) -> None:
    """Refuse a decay factor outside [0, 1).

    Args:
        name: the setting, for the message.
        value: its value.

    Raises:
        UsageError: it is outside.
    """
    if not 0 <= value < 1:
        raise UsageError(f"{name} must be at least 0 and below 1, not {value}")


def require_weight_decay(value: float) -> None:
    """Refuse a weight decay that is negative or not finite.

    Args:
        value: the decay per unit of learning rate.

    Raises:
        UsageError: it is.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"weight_decay must be a finite number, 0 or more, not {value}")


def decay_weights(theta: Float32Array, lr: float, weight_decay: float) -> None:
    """Shrink theta by lr * weight_decay of itself, in place, apart from the gradient.

    Args:
        theta: the tensor.
        lr: learning rate of this step.
        weight_decay: 0 leaves theta as it is.

    References:
        Loshchilov, Hutter 2019, arXiv:1711.05101 (decoupled weight decay).
    """
    if weight_decay:
        np.multiply(theta, np.float32(1 - lr * weight_decay), out=theta)
