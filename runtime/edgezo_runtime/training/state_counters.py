"""Step and time counters of a training state, as snapshots store them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.system.typed_json import JsonShapeError, decode
from edgezo_runtime.training.divergence import LossMonitor


@dataclass(frozen=True, slots=True)
class StateCounters:
    """The numbers that a snapshot stores besides arrays, under the names of the file format.

    Attributes:
        elapsed_s: seconds of the run.
        average_weight: weight of the running average.
        norm_state: state of the normalization.
        watch: fields of a `LossMonitor`, null for infinity.
        good: of the copy that the run rolls back to: step, weight of the average, state of the
            normalization.
    """

    elapsed_s: float
    average_weight: float
    norm_state: tuple[float, ...]
    watch: dict[str, object]
    good: tuple[float, ...]

    @classmethod
    def read(cls, counters: Mapping[str, Any]) -> StateCounters:
        """Read the counters of a snapshot.

        Raises:
            RunFileError: a number is missing, or impossible.
        """
        try:
            found = decode(cls, dict(counters))
            watch = found.monitor()
        except JsonShapeError as error:
            raise RunFileError(f"snapshot: {error}") from error
        numbers = [found.elapsed_s, found.average_weight, *found.norm_state, *found.good]
        numbers += [watch.weight, watch.variance, watch.variance_weight, watch.seen, watch.returns]
        signed = [watch.mean, watch.window, watch.previous or 0.0, watch.factor]
        sound = all(0 <= number < math.inf for number in numbers)
        sound = sound and all(map(math.isfinite, signed)) and len(found.norm_state) == 2
        if not sound or len(found.good) != 4 or found.good[0] >= 2**63:
            raise RunFileError(
                "snapshot: a counter is impossible; remove the snapshot, the journal is enough to "
                "resume"
            )
        return found

    def monitor(self) -> LossMonitor:
        """The loss monitor of the state.

        Raises:
            JsonShapeError: a field is missing or has another type.
        """
        known = dict(self.watch)
        unset = {name: math.inf for name in ("best", "last") if known.get(name, 0) is None}
        return decode(LossMonitor, {**known, **unset}, "watch")
