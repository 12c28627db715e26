"""What a run goes on from: trainables, state of rule and sampler, running average, step, time."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.estimators import Term
from edgezo_runtime.methods import Parts
from edgezo_runtime.rules import FrameRule
from edgezo_runtime.rules.rule import Slot
from edgezo_runtime.samplers import Frame
from edgezo_runtime.shaping import Normalizer
from edgezo_runtime.snapshot import Snapshot
from edgezo_runtime.step_record import StepRecord

Float32 = npt.NDArray[np.float32]

_AVERAGE = "#average"
_SAMPLER = "sampler."


class StepDirections:
    """The frames of one step, made when first asked for.

    Args:
        state: before the step; not to be updated while this is in use by probes.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._frames: dict[str, Frame] = {}

    def frame(self, name: str) -> Frame:
        """The directions of a tensor. Two threads may make the same frame; one is kept."""
        made = self._frames.get(name)
        return self._frames.setdefault(name, self._state.frame(name)) if made is None else made

    @property
    def theta(self) -> Mapping[str, Float32]:
        """The trainables."""
        return self._state.theta

    def base(self, name: str, *, anchored: bool) -> Float32:
        """Theta, or the rule's anchor."""
        if not anchored:
            return self._state.theta[name]
        slot = self._state.slots[name]
        if slot is None or "anchor" not in slot:
            raise UsageError(f"'{name}': a probe around an anchor, and the rule keeps none")
        return slot["anchor"]


class TrainingState:
    """A run's state after some steps. `apply` is a function of a step's record alone.

    Args:
        initial: the trainables a run begins with; its arrays are taken over.
        trained: the blocks of those that the run trains, by name.
        config: how.
        parts: rule and sampler.

    Attributes:
        theta: the trainables by name.
        slots: state of the rule, for each that is trained.
        sampler_slots: likewise of the sampler.
        average: running average of those, before division by its weight.
        step: steps done.
        elapsed_s: seconds they took.
        norm_state: state of the normalization of projected gradients.
        normalizer: what is done to projected gradients; None for nothing.
        seed: of the run.
    """

    def __init__(
        self,
        initial: Mapping[str, Float32],
        trained: Mapping[str, int],
        config: TuneConfig,
        parts: Parts,
    ) -> None:
        self._rule = parts.rule
        self._sampler = parts.sampler
        self._blocks = dict(trained)
        self.normalizer = _normalizer(config)
        self._noise = config.noise
        self.seed = config.seed
        self._decay = np.float32(config.average)
        self.step = 0
        self.theta = dict(initial)
        self.sampler_slots: dict[str, Slot] = {
            name: self._sampler.init(self.theta[name]) for name in trained
        }
        self.slots: dict[str, Slot] = {name: self._first_slot(name) for name in trained}
        self.average = {name: np.zeros_like(self.theta[name]) for name in self.slots}
        self._average_weight = 0.0
        self.norm_state = self.normalizer.init() if self.normalizer else (0.0, 0.0)
        self.elapsed_s = 0.0

    def _first_slot(self, name: str) -> Slot:
        if isinstance(self._rule, FrameRule):
            return self._rule.init_in(self.frame(name))
        return self._rule.init(self.theta[name])

    def frame(self, name: str) -> Frame:
        """The directions of a tensor in the step to come."""
        slot = self.sampler_slots[name]
        return self._sampler.frame(name, self.theta[name], slot, self.step, self.seed)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        kept = [*self.slots.values(), *self.sampler_slots.values()]
        slots = [part for slot in kept if slot for part in slot.values()]
        return sum(
            tensor.nbytes for tensor in [*self.theta.values(), *self.average.values(), *slots]
        )

    def gradients(self, terms: list[Term], blocks: Collection[int]) -> Iterator[Float32]:
        """The gradient estimate of every trained tensor of some blocks."""
        for name, block in self._blocks.items():
            if block in blocks:
                own = [term for term in terms if term.concerns(block)]
                yield self.frame(name).gradient(own, name, self._noise)

    def apply(self, record: StepRecord, terms: list[Term]) -> None:
        """Update the trainables of a step's active blocks.

        Args:
            record: the step.
            terms: the gradient that follows from its losses.
        """
        if self.normalizer is not None:
            terms, self.norm_state = self.normalizer.apply(terms, self.norm_state)
        for name, block in self._blocks.items():
            if block in record.blocks:
                own = [term for term in terms if term.concerns(block)]
                self._update(name, own, record)
        self._fold_average()
        self.step = record.step + 1

    def _update(self, name: str, terms: list[Term], record: StepRecord) -> None:
        """One tensor's step, along the directions of its probes."""
        theta, slot = self.theta[name], self.slots[name]
        frame = self.frame(name)
        coords = frame.gather(terms, name, self._noise)
        if isinstance(self._rule, FrameRule):
            slot = self._rule.apply_in(frame, theta, coords, slot, record.step, record.lr)
        else:
            slot = self._rule.apply(
                theta, frame.lift(coords[None])[0], slot, record.step, record.lr
            )
        self.slots[name] = slot
        kept = self.sampler_slots[name]
        self.sampler_slots[name] = self._sampler.advance(kept, frame, name, terms, self._noise)

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
        slots = {name: _joined(slot, self.sampler_slots[name]) for name, slot in self.slots.items()}
        counters: dict[str, Any] = {
            "elapsed_s": self.elapsed_s,
            "average_weight": self._average_weight,
            "norm_state": list(self.norm_state),
        }
        return Snapshot(theta, slots, self.step, digest, counters)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what a snapshot of the same run keeps."""
        self.theta = {name: np.array(snapshot.theta[name]) for name in self.theta}
        self.average = {
            name: np.array(snapshot.theta[f"{name}{_AVERAGE}"]) for name in self.average
        }
        for name in self.slots:
            self.slots[name], self.sampler_slots[name] = _parted(snapshot.slots.get(name))
        self.step = snapshot.step
        self.elapsed_s = float(snapshot.counters["elapsed_s"])
        self._average_weight = float(snapshot.counters["average_weight"])
        total, weight = snapshot.counters["norm_state"]
        self.norm_state = (float(total), float(weight))


def _normalizer(config: TuneConfig) -> Normalizer | None:
    if not config.normalize and not config.clip:
        return None
    return Normalizer(clip=config.clip or math.inf, divide=config.normalize)


def _joined(rule: Slot, sampler: Slot) -> Slot:
    """The state of rule and sampler as one slot; None where there is none."""
    own = {f"{_SAMPLER}{part}": value for part, value in (sampler or {}).items()}
    return {**(rule or {}), **own} or None


def _parted(slot: Slot) -> tuple[Slot, Slot]:
    """What `_joined` joined."""
    found: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for part, value in (slot or {}).items():
        found[part.startswith(_SAMPLER)][part.removeprefix(_SAMPLER)] = value
    return found[0] or None, found[1] or None
