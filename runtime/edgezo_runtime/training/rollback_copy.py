"""The copy of a training state that a run returns to when it diverges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.methods.rules.rule import Slot

Float32 = npt.NDArray[np.float32]

_SUFFIX = "#good"
"""End of the names that the arrays of the copy have in a snapshot."""


@dataclass(frozen=True, slots=True)
class RollbackCopy:
    """A state that a run can roll back to.

    Attributes:
        step: steps that had been taken.
        arrays: trainables and running averages by name.
        slots: state of rule and sampler by name.
        average_weight: weight of the running average.
        norm_state: state of the normalization.
    """

    step: int
    arrays: dict[str, Float32]
    slots: dict[str, Slot]
    average_weight: float
    norm_state: tuple[float, float]

    @classmethod
    def of(
        cls,
        step: int,
        arrays: Mapping[str, Float32],
        slots: Mapping[str, Slot],
        average_weight: float,
        norm_state: tuple[float, float],
    ) -> RollbackCopy:
        """Copy the arrays of a state."""
        return cls(
            step,
            {name: value.copy() for name, value in arrays.items()},
            {
                name: slot and {part: value.copy() for part, value in slot.items()}
                for name, slot in slots.items()
            },
            average_weight,
            norm_state,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        parts = [part for slot in self.slots.values() if slot for part in slot.values()]
        return sum(array.nbytes for array in [*self.arrays.values(), *parts])

    @property
    def counters(self) -> list[float]:
        """The numbers that a snapshot stores of the copy."""
        return [self.step, self.average_weight, *self.norm_state]

    def as_stored(self) -> tuple[dict[str, Float32], dict[str, Slot]]:
        """Arrays and slots under the names that they have in a snapshot."""
        return (
            {f"{name}{_SUFFIX}": value for name, value in self.arrays.items()},
            {f"{name}{_SUFFIX}": slot for name, slot in self.slots.items()},
        )


def stored_copy(
    arrays: Mapping[str, Float32], slots: Mapping[str, Slot]
) -> tuple[dict[str, Float32], dict[str, Slot]]:
    """Arrays and slots of the copy among those of a snapshot, under their own names."""
    return (
        {name.removesuffix(_SUFFIX): v for name, v in arrays.items() if _SUFFIX in name},
        {name.removesuffix(_SUFFIX): v for name, v in slots.items() if _SUFFIX in name},
    )
