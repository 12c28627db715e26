"""The protocol of update rules, and the checks that rules share."""

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
    """The update of one tensor.

    Arithmetic is elementwise float32, so every machine gets the same bits.
    """

    def init(self, theta: Float32Array) -> Slot:
        """Make the rule's state for a tensor.

        Args:
            theta: the tensor before the first step; only read.

        Returns:
            Named arrays, as a snapshot stores them, or None for a rule without state.
        """
        ...

    def apply(self, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float) -> Slot:
        """Write the next theta in place.

        Args:
            theta: the tensor, float32.
            g: gradient estimate of the same shape; only read.
            slot: the slot that `init` or the last `apply` returned; its arrays are reused.
            step: step of the run, from 0. Tensors of inactive blocks are not updated.
            lr: learning rate of this step, a value that float32 holds exactly, as in the journal.

        Returns:
            The slot for the next call.
        """
        ...


@runtime_checkable
class FrameRule(Protocol):
    """An update that works in the coordinates of the step's directions."""

    def init_in(self, frame: Frame) -> Slot:
        """Make the rule's state for a tensor, given its first frame."""
        ...

    def apply_in(
        self, frame: Frame, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float
    ) -> Slot:
        """Write the next theta in place, as `Rule.apply` does; g has the frame's coordinates."""
        ...


def require_slot(slot: Slot, *keys: str) -> dict[str, npt.NDArray[Any]]:
    """Check that a slot belongs to a rule.

    Args:
        slot: the state of a tensor.
        keys: names of the rule's arrays.

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
        UsageError: the value is outside.
    """
    if not 0 <= value < 1:
        raise UsageError(f"`{name}` must be at least 0 and below 1, not {value}")


def require_weight_decay(value: float) -> None:
    """Refuse a weight decay that is negative or not finite.

    Args:
        value: the decay per unit of learning rate.

    Raises:
        UsageError: the value is negative or not finite.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"`weight_decay` must be a finite number, 0 or more, not {value}")


def decay_weights(theta: Float32Array, lr: float, weight_decay: float) -> None:
    """Multiply theta by 1 - lr * weight_decay in place, independently of the gradient.

    Args:
        theta: the tensor.
        lr: learning rate of this step.
        weight_decay: 0 leaves theta as it is.

    References:
        Loshchilov, Hutter 2019, arXiv:1711.05101 (decoupled weight decay).
    """
    if weight_decay:
        np.multiply(theta, np.float32(1 - lr * weight_decay), out=theta)
