"""What a run goes on from: trainables, state of rule and sampler, running average, step, time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.snapshot import Snapshot
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.estimators import Term
from edgezo_runtime.methods.method import Parts
from edgezo_runtime.methods.rules import FrameRule, Rule
from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.methods.rules.rule import Slot
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.methods.shaping import Normalizer
from edgezo_runtime.training.divergence import MOST_RETURNS, WINDOW, LossMonitor
from edgezo_runtime.training.state_counters import _Counters

Float32 = npt.NDArray[np.float32]
Move = Callable[[Frame, Float32, Float32, Slot, int, float], Slot]

_AVERAGE = "#average"
_GOOD = "#good"
_SAMPLER = "sampler."


@dataclass(slots=True)
class Copy:
    """Where a run returns to when it diverges.

    Attributes:
        step: steps done then.
        arrays: trainables, averages (with a suffix), and state of rule and sampler, by name.
        slots: state of rule and sampler, by name.
        average_weight: of the running average.
        norm_state: of the normalization.
    """

    step: int
    arrays: dict[str, Float32]
    slots: dict[str, Slot]
    average_weight: float
    norm_state: tuple[float, float]


@dataclass(frozen=True, slots=True)
class FirstOrderRates:
    """What first-order steps train, and how fast.

    Attributes:
        rates: learning rate of every tensor, as a multiple of the step's.
    """

    rates: Mapping[str, float] = field(default_factory=dict)


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
        first_order: tensors that first-order steps train, none for most runs.
        scales: tensors that never go below zero (QZO, arXiv:2505.13430).

    Attributes:
        theta: the trainables by name.
        slots: state of the rule, for each that is trained.
        sampler_slots: likewise of the sampler.
        average: running average of those, before division by its weight.
        step: steps done.
        elapsed_s: seconds they took.
        watch: what is known of the losses; its factor is part of the learning rate.
        events: what was noticed in the last step, in words.
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
        first_order: FirstOrderRates | None = None,
        scales: Collection[str] = (),
    ) -> None:
        self._scales = frozenset(scales)
        self._flag = "--lr" if trained else "--first-order-lr"
        self._first_order = first_order or FirstOrderRates()
        self._first_order_rule = Adam()
        self._rule = parts.rule
        self._move = _mover(parts.rule)
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
        for name in self._first_order.rates:
            self.slots[name] = self._first_order_rule.init(self.theta[name])
        self.average = {name: np.zeros_like(self.theta[name]) for name in self.slots}
        self._average_weight = 0.0
        self.norm_state = self.normalizer.init() if self.normalizer else (0.0, 0.0)
        self.elapsed_s = 0.0
        self.monitor = LossMonitor()
        self.events: list[str] = []
        self._rolls_back = config.rollback
        self._good = self._copied()

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
        kept = [*self.slots.values(), *self.sampler_slots.values(), *self._good.slots.values()]
        slots = [part for slot in kept if slot for part in slot.values()]
        own = [*self.theta.values(), *self.average.values(), *self._good.arrays.values()]
        return sum(tensor.nbytes for tensor in [*own, *slots])

    def gradients(self, terms: list[Term], blocks: Collection[int]) -> Iterator[Float32]:
        """The gradient estimate of every trained tensor of some blocks."""
        for name, block in self._blocks.items():
            if block in blocks:
                own = [term for term in terms if term.concerns(block)]
                yield self.frame(name).gradient(own, name, self._noise)

    def apply(
        self, record: StepRecord, terms: list[Term], exact: Mapping[str, Float32] | None = None
    ) -> None:
        """Update the trainables of a step's active blocks, and those of the first_order.

        Args:
            record: the step.
            terms: the gradient that follows from its losses.
            exact: gradients of the first_order.
        """
        self.events.clear()
        if not record.losses.size:
            self._return(record, "a loss that is not finite")
            return
        if self.normalizer is not None:
            terms, self.norm_state = self.normalizer.apply(terms, self.norm_state)
        for name, block in self._blocks.items():
            if block in record.blocks:
                own = [term for term in terms if term.concerns(block)]
                self._update(name, own, record)
        for name, g in (exact or {}).items():
            slot, lr = (
                self.slots[name],
                float(np.float32(record.lr * self._first_order.rates[name])),
            )
            self.slots[name] = self._first_order_rule.apply(
                self.theta[name], g, slot, record.step, lr
            )
        for name in self._scales.intersection(self.slots):
            np.maximum(self.theta[name], 0, out=self.theta[name])
        self._fold_average()
        self.step = record.step + 1
        if self._rolls_back:
            self._judge(record)

    def _judge(self, record: StepRecord) -> None:
        """Keep a copy, return to the last one, or tell of a plateau."""
        loss = float(record.losses.mean(dtype=np.float64))
        self.monitor, verdict = self.monitor.see(loss)
        if verdict == "diverged":
            loss = self.monitor.mean / self.monitor.weight
            self._return(record, f"the loss is {loss:.3g}, and was {self.monitor.best:.3g}")
        elif verdict == "good":
            self._good = self._copied()
        elif verdict == "plateau":
            self.events.append(
                f"step {self.step}: the loss has not fallen in the last {WINDOW} steps; more of "
                f"them bring little"
            )

    def _return(self, record: StepRecord, reason: str) -> None:
        """Go back to the last good copy, with half the learning rate."""
        good = self._good
        self.monitor = self.monitor.returned()
        self.step = record.step + 1
        self._restore_arrays(good.arrays, good.slots)
        self._average_weight, self.norm_state = good.average_weight, good.norm_state
        self._good = dataclasses.replace(self._copied(), step=good.step)
        self.events.append(
            f"step {self.step}: {reason}: back to the trainables after {good.step} steps, "
            f"learning rate halved"
        )

    @property
    def hopeless(self) -> str:
        """Why no step may follow: the run went back too often. Empty where one may."""
        if self.monitor.returns <= MOST_RETURNS:
            return ""
        return (
            f"step {self.step}: diverged for the {self.monitor.returns}th time; the trainables are "
            f"those after {self._good.step} steps; give a smaller {self._flag}, or look at the data"
        )

    def _copied(self) -> Copy:
        arrays, slots = self._arrays()
        return Copy(
            self.step,
            {name: value.copy() for name, value in arrays.items()},
            {
                name: slot and {part: value.copy() for part, value in slot.items()}
                for name, slot in slots.items()
            },
            self._average_weight,
            self.norm_state,
        )

    def _arrays(self) -> tuple[dict[str, Float32], dict[str, Slot]]:
        """What changes: trainables and averages, and state of rule and sampler; not copied."""
        arrays = {name: self.theta[name] for name in self.slots}
        arrays |= {f"{name}{_AVERAGE}": mean for name, mean in self.average.items()}
        slots = {
            name: _joined(slot, self.sampler_slots.get(name)) for name, slot in self.slots.items()
        }
        return arrays, slots

    def _restore_arrays(self, arrays: Mapping[str, Float32], slots: Mapping[str, Slot]) -> None:
        for name in self.slots:
            self.theta[name] = np.array(arrays[name])
            self.average[name] = np.array(arrays[f"{name}{_AVERAGE}"])
            own = slots.get(name)
            copied = own and {part: np.array(value) for part, value in own.items()}
            self.slots[name], kept = _parted(copied)
            if name in self._blocks:
                self.sampler_slots[name] = kept

    def _update(self, name: str, terms: list[Term], record: StepRecord) -> None:
        """One tensor's step, along the directions of its probes."""
        theta, slot = self.theta[name], self.slots[name]
        frame = self.frame(name)
        coords = frame.gather(terms, name, self._noise)
        self.slots[name] = self._move(frame, theta, coords, slot, record.step, record.lr)
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
        arrays, slots = self._arrays()
        good = self._good
        arrays |= {f"{name}{_GOOD}": value for name, value in good.arrays.items()}
        slots |= {f"{name}{_GOOD}": slot for name, slot in good.slots.items()}
        counters: dict[str, Any] = {
            "elapsed_s": self.elapsed_s,
            "average_weight": self._average_weight,
            "norm_state": list(self.norm_state),
            "watch": {
                name: None if value == math.inf else value
                for name, value in dataclasses.asdict(self.monitor).items()
            },
            "good": [good.step, good.average_weight, *good.norm_state],
        }
        return Snapshot(self.theta | arrays, slots, self.step, digest, counters)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what a snapshot of the same run keeps.

        Raises:
            RunFileError: it is not of this run's tensors, or a number in it makes no sense.
        """
        counters = _Counters.read(snapshot.counters)
        self._check_fits(snapshot)
        step, weight, *norm_state = counters.good
        self._restore_arrays(
            {name.removesuffix(_GOOD): v for name, v in snapshot.theta.items() if _GOOD in name},
            {name.removesuffix(_GOOD): v for name, v in snapshot.slots.items() if _GOOD in name},
        )
        self.step, self._average_weight = int(step), float(weight)
        self.norm_state = float(norm_state[0]), float(norm_state[1])
        self._good = self._copied()
        self.theta = {name: np.array(snapshot.theta[name]) for name in self.theta}
        self._restore_arrays(snapshot.theta, snapshot.slots)
        self.step = snapshot.step
        self.elapsed_s = counters.elapsed_s
        self._average_weight = counters.average_weight
        total, weight = counters.norm_state
        self.norm_state = (total, weight)
        self.monitor = counters.read_watch()

    def _check_fits(self, snapshot: Snapshot) -> None:
        """Compare names, types and shapes with those of this state."""
        own = self.snapshot("")
        kept = _forms(own.theta, own.slots)
        found = _forms(snapshot.theta, snapshot.slots)
        if odd := kept.items() ^ found.items():
            name = min(name for name, _ in odd)
            raise RunFileError(
                f"snapshot: {name[:80]!r} is {found.get(name, 'missing')}, in this run "
                f"{kept.get(name, 'nothing')}; remove the snapshot, the journal is enough"
            )


def _forms(theta: Mapping[str, Float32], slots: Mapping[str, Slot]) -> dict[str, str]:
    """Type and shape of every array, by name."""
    arrays: dict[str, npt.NDArray[Any]] = dict(theta)
    for name, slot in slots.items():
        arrays |= {f"{name}/{part}": value for part, value in (slot or {}).items()}
    return {name: f"{value.dtype} {value.shape}" for name, value in arrays.items()}


def _mover(rule: Rule | FrameRule) -> Move:
    """How a rule moves a tensor by a gradient in the coordinates of a frame.

    Found out once: asking whether an object follows a protocol takes as long as a small update.
    """
    if isinstance(rule, FrameRule):
        return rule.apply_in

    def move(
        frame: Frame, theta: Float32, coords: Float32, slot: Slot, step: int, lr: float
    ) -> Slot:
        return rule.apply(theta, frame.lift(coords[None])[0], slot, step, lr)

    return move


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
