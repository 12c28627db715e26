"""What a run goes on from: trainables, rule state, running average, step and time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.estimators import Term, gradient
from edgezo_runtime.rules import RULES
from edgezo_runtime.rules.adam import Adam
from edgezo_runtime.rules.rule import Slot
from edgezo_runtime.shaping import Normalizer
from edgezo_runtime.snapshot import Snapshot
from edgezo_runtime.step_record import StepRecord

Float32 = npt.NDArray[np.float32]

_AVERAGE = "#average"


class TrainingState:
    """A run's state after some steps. `apply` is a function of a step's record alone.

    Args:
        initial: the trainables a run begins with; its arrays are taken over.
        trained: names of those that the run trains.
        config: how.
        tail: names of those that first-order steps train.

    Attributes:
        theta: the trainables by name.
        slots: state of the rule, for each that is trained.
        average: running average of those, before division by its weight.
        step: steps done.
        elapsed_s: seconds they took.
        norm_state: state of the normalization of projected gradients.
    """

    def __init__(
        self,
        initial: Mapping[str, Float32],
        trained: Iterable[str],
        config: TuneConfig,
        tail: Iterable[str] = (),
    ) -> None:
        self._tail_rule = Adam()
        self._tail_share = config.hybrid_lr / config.lr
        self._rule = RULES[config.rule]()
        self._normalizer = Normalizer(clip=config.clip) if config.normalize else None
        self._noise = config.noise
        self._decay = np.float32(config.average)
        self.theta = dict(initial)
        self.slots: dict[str, Slot] = {name: self._rule.init(self.theta[name]) for name in trained}
        self.slots |= {name: self._tail_rule.init(self.theta[name]) for name in tail}
        self.average = {name: np.zeros_like(self.theta[name]) for name in self.slots}
        self._average_weight = 0.0
        self.norm_state = self._normalizer.init() if self._normalizer else (0.0, 0.0)
        self.step = 0
        self.elapsed_s = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        slots = [part for slot in self.slots.values() if slot for part in slot.values()]
        return sum(
            tensor.nbytes for tensor in [*self.theta.values(), *self.average.values(), *slots]
        )

    def apply(
        self,
        record: StepRecord,
        terms: list[Term],
        names: Iterable[str],
        tail: Mapping[str, Float32],
    ) -> None:
        """Update the trainables.

        Args:
            record: the step.
            terms: the gradient that follows from its losses.
            names: trainables of its active blocks.
            tail: gradients by first-order steps; their rate follows the same schedule.
        """
        if self._normalizer is not None:
            terms, self.norm_state = self._normalizer.apply(terms, self.norm_state)
        for name in names:
            theta = self.theta[name]
            g = gradient(terms, name, theta.shape, kind=self._noise)
            self.slots[name] = self._rule.apply(theta, g, self.slots[name], record.step, record.lr)
        lr = float(np.float32(record.lr * self._tail_share))
        for name, g in tail.items():
            slot = self.slots[name]
            self.slots[name] = self._tail_rule.apply(self.theta[name], g, slot, record.step, lr)
        self._fold_average()
        self.step = record.step + 1

    def _fold_average(self) -> None:
        if not self._decay:
            return
        for name, mean in self.average.items():
            mean *= self._decay
            mean += (1 - self._decay) * self.theta[name]
        kept = float(self._decay)
        self._average_weight = kept * self._average_weight + float(1 - self._decay)

    def adapter(self) -> dict[str, Float32]:
        """Copies of the tuned trainables: their running average where one is kept."""
        tuned = {name: value.copy() for name, value in self.theta.items()}
        if self._average_weight:
            for name, mean in self.average.items():
                tuned[name] = mean / np.float32(self._average_weight)
        return tuned

    def snapshot(self, digest: str) -> Snapshot:
        """The state as a file keeps it; its arrays are this state's.

        Args:
            digest: what the run depends on.
        """
        theta = self.theta | {f"{name}{_AVERAGE}": mean for name, mean in self.average.items()}
        counters: dict[str, Any] = {
            "elapsed_s": self.elapsed_s,
            "average_weight": self._average_weight,
            "norm_state": list(self.norm_state),
        }
        return Snapshot(theta, self.slots, self.step, digest, counters)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what a snapshot of the same run keeps."""
        self.theta = {name: np.array(snapshot.theta[name]) for name in self.theta}
        self.average = {
            name: np.array(snapshot.theta[f"{name}{_AVERAGE}"]) for name in self.average
        }
        self.slots = {name: snapshot.slots.get(name) for name in self.slots}
        self.step = snapshot.step
        self.elapsed_s = float(snapshot.counters["elapsed_s"])
        self._average_weight = float(snapshot.counters["average_weight"])
        total, weight = snapshot.counters["norm_state"]
        self.norm_state = (float(total), float(weight))
