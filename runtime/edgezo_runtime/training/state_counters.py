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
class _Counters:
    """What a snapshot keeps besides arrays.

    Attributes:
        elapsed_s: seconds of the run.
        average_weight: of the running average.
        norm_state: of the normalization.
        watch: see `LossMonitor`; null for infinity. The word is the file format's.
        good: of the copy to return to: step, weight of the average, state of the normalization.
    """

    elapsed_s: float
    average_weight: float
    norm_state: tuple[float, ...]
    watch: dict[str, object]
    good: tuple[float, ...]

    @classmethod
    def read(cls, counters: Mapping[str, Any]) -> _Counters:
        """From a snapshot.

        Raises:
            RunFileError: something is missing, or makes no sense.
        """
        try:
            found = decode(cls, dict(counters))
            watch = found.read_watch()
        except JsonShapeError as error:
            raise RunFileError(f"snapshot: {error}") from error
        numbers = [found.elapsed_s, found.average_weight, *found.norm_state, *found.good]
        numbers += [watch.weight, watch.variance, watch.variance_weight, watch.seen, watch.returns]
        signed = [watch.mean, watch.window, watch.previous or 0.0, watch.factor]
        sound = all(0 <= number < math.inf for number in numbers)
        sound = sound and all(map(math.isfinite, signed)) and len(found.norm_state) == 2
        if not sound or len(found.good) != 4 or found.good[0] >= 2**63:
            raise RunFileError(
                "snapshot: a counter makes no sense; remove it, the journal is enough"
            )
        return found

    def read_watch(self) -> LossMonitor:
        """What was known of the losses.

        Raises:
            JsonShapeError: something is missing.
        """
        known = dict(self.watch)
        unset = {name: math.inf for name in ("best", "last") if known.get(name, 0) is None}
        return decode(LossMonitor, {**known, **unset}, "watch")
