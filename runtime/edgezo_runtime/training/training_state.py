"""The state of a run after a step: trainables, rule and sampler, running average, time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.snapshot import Snapshot
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.estimators import Term
from edgezo_runtime.methods.method import Parts
from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.methods.rules.rule import Slot
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.methods.shaping import Normalizer
from edgezo_runtime.training.divergence import MOST_RETURNS, WINDOW, LossMonitor
from edgezo_runtime.training.feedback_state import FeedbackState
from edgezo_runtime.training.rollback_copy import RollbackCopy, stored_copy
from edgezo_runtime.training.rule_update import init_slot, mover
from edgezo_runtime.training.state_counters import StateCounters

Float32 = npt.NDArray[np.float32]

_AVERAGE = "#average"
_SAMPLER = "sampler."


class TrainingState:
    """A run's state after some steps. `apply` is a function of a step's record alone.

    Args:
        initial: the trainables that a run begins with; the state owns their arrays from now on.
        trained: the trainables that the run estimates gradients for, and the block of each.
        config: how to tune.
        parts: rule and sampler.
        first_order: the tensors that take first-order steps, and the learning rate of each as a
            multiple of the step's; None for none.
        scales: tensors that never go below zero (QZO, arXiv:2505.13430).
        feedback: what the run knows of its feedback; None for other methods.

    Attributes:
        feedback: the same.
        theta: all trainables by name.
        slots: state of the rule for each tensor that trains.
        sampler_slots: state of the sampler for each tensor that gradients are estimated for.
        average: running average of each tensor that trains, before division by its weight.
        step: number of steps that were taken.
        elapsed_s: seconds that the steps took.
        monitor: watches the losses for divergence; its factor is part of the learning rate.
        events: what happened in the last step besides the update, as text.
        norm_state: state of the normalization of projected gradients.
        normalizer: normalizes projected gradients; None leaves them as they are.
        seed: seed of the run.
    """

    def __init__(
        self,
        initial: Mapping[str, Float32],
        trained: Mapping[str, int],
        config: TuneConfig,
        parts: Parts,
        first_order: Mapping[str, float] | None = None,
        scales: Collection[str] = (),
        feedback: FeedbackState | None = None,
    ) -> None:
        self.feedback = feedback
        self._scales = frozenset(scales)
        by_lr = trained or config.method == "feedback"
        self._rate_setting = "lr" if by_lr else "first_order_lr"
        self._first_order = dict(first_order or {})
        self._first_order_rule = Adam()
        self._move = mover(parts.rule)
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
        self.slots: dict[str, Slot] = {
            name: init_slot(parts.rule, self.theta[name], partial(self.frame, name))
            for name in trained
        }
        for name in self._first_order:
            self.slots[name] = self._first_order_rule.init(self.theta[name])
        self.average = {name: np.zeros_like(self.theta[name]) for name in self.slots}
        self._average_weight = 0.0
        self.norm_state = self.normalizer.init() if self.normalizer else (0.0, 0.0)
        self.elapsed_s = 0.0
        self.monitor = LossMonitor()
        self.events: list[str] = []
        self._rolls_back = config.rollback
        self._good = self._copied()

    def frame(self, name: str) -> Frame:
        """The directions of a tensor in the next step."""
        slot = self.sampler_slots[name]
        return self._sampler.frame(name, self.theta[name], slot, self.step, self.seed)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        slots = [*self.slots.values(), *self.sampler_slots.values()]
        parts = [part for slot in slots if slot for part in slot.values()]
        own = [*self.theta.values(), *self.average.values(), *parts]
        return sum(tensor.nbytes for tensor in own) + self._good.nbytes

    def gradients(self, terms: list[Term], blocks: Collection[int]) -> Iterator[Float32]:
        """The gradient estimate of every trained tensor of some blocks."""
        for name, block in self._blocks.items():
            if block in blocks:
                own = [term for term in terms if term.concerns(block)]
                yield self.frame(name).gradient(own, name, self._noise)

    def apply(
        self, record: StepRecord, terms: list[Term], exact: Mapping[str, Float32] | None = None
    ) -> None:
        """Update the trainables by a step: by its estimates, and by its first-order gradients.

        Args:
            record: the step.
            terms: the gradient estimate that follows from the losses of the step.
            exact: gradients of the tensors that take first-order steps.
        """
        self.events.clear()
        if not record.losses.size:
            self._roll_back(record, "a loss is not finite")
            return
        if self.normalizer is not None:
            terms, self.norm_state = self.normalizer.apply(terms, self.norm_state)
        for name, block in self._blocks.items():
            if block in record.blocks:
                own = [term for term in terms if term.concerns(block)]
                self._update(name, own, record)
        for name, g in (exact or {}).items():
            slot = self.slots[name]
            lr = float(np.float32(record.lr * self._first_order[name]))
            self.slots[name] = self._first_order_rule.apply(
                self.theta[name], g, slot, record.step, lr
            )
        for name in self._scales.intersection(self.slots):
            np.maximum(self.theta[name], 0, out=self.theta[name])
        self._fold_average()
        self.step = record.step + 1
        if self._rolls_back:
            self._watch(record)

    def observe(self, record: StepRecord, extra: bytes) -> None:
        """Learn feedback from the pairs of a step; the model stays as it is, because A is zero.

        Args:
            record: the step.
            extra: bytes of the record, see `FeedbackState.observe`.
        """
        self.events.clear()
        assert self.feedback is not None
        self.theta |= self.feedback.observe(record, extra)
        self.step = record.step + 1

    def _watch(self, record: StepRecord) -> None:
        """Copy the state, roll back, or report a plateau, as the loss of a step demands."""
        loss = float(record.losses.mean(dtype=np.float64))
        self.monitor, verdict = self.monitor.see(loss)
        if verdict == "diverged":
            loss = self.monitor.mean / self.monitor.weight
            self._roll_back(record, f"the loss rose from {self.monitor.best:.3g} to {loss:.3g}")
        elif verdict == "good":
            self._good = self._copied()
        elif verdict == "plateau":
            self.events.append(
                f"step {self.step}: the loss has not fallen in the last {WINDOW} steps; more steps "
                f"will hardly lower it"
            )

    def _roll_back(self, record: StepRecord, reason: str) -> None:
        """Return to the last copy, with half the learning rate."""
        good = self._good
        self.monitor = self.monitor.rolled_back()
        self.step = record.step + 1
        self._restore_arrays(good.arrays, good.slots)
        self._average_weight, self.norm_state = good.average_weight, good.norm_state
        self._good = dataclasses.replace(self._copied(), step=good.step)
        self.events.append(
            f"step {self.step}: {reason}; the run rolled back to step {good.step}, learning rate "
            f"halved"
        )

    @property
    def hopeless(self) -> str:
        """Why no step may follow: the run rolled back too often. Empty where a step may follow."""
        if self.monitor.returns <= MOST_RETURNS:
            return ""
        return (
            f"step {self.step}: diverged for the {self.monitor.returns}th time; the trainables are "
            f"those of step {self._good.step}; give a smaller `{self._rate_setting}`, or check the "
            f"data"
        )

    def _copied(self) -> RollbackCopy:
        arrays, slots = self._arrays()
        return RollbackCopy.of(self.step, arrays, slots, self._average_weight, self.norm_state)

    def _arrays(self) -> tuple[dict[str, Float32], dict[str, Slot]]:
        """What steps change: trainables, averages, and state of rule and sampler; no copies."""
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
            self.slots[name], sampler_slot = _parted(copied)
            if name in self._blocks:
                self.sampler_slots[name] = sampler_slot

    def _update(self, name: str, terms: list[Term], record: StepRecord) -> None:
        """Move one tensor along the directions of its probes."""
        theta, slot = self.theta[name], self.slots[name]
        frame = self.frame(name)
        coords = frame.gather(terms, name, self._noise)
        self.slots[name] = self._move(frame, theta, coords, slot, record.step, record.lr)
        self.sampler_slots[name] = self._sampler.advance(
            self.sampler_slots[name], frame, name, terms, self._noise
        )

    def _fold_average(self) -> None:
        if not self._decay:
            return
        for name, mean in self.average.items():
            mean *= self._decay
            mean += (1 - self._decay) * self.theta[name]
        decay = float(self._decay)
        self._average_weight = decay * self._average_weight + float(1 - self._decay)

    def adapter(self) -> dict[str, Float32]:
        """Copies of the trainables; those that train as their running average, if there is one."""
        tuned = {name: value.copy() for name, value in self.theta.items()}
        if self._average_weight:
            for name, mean in self.average.items():
                tuned[name] = mean / np.float32(self._average_weight)
        return tuned

    def snapshot(self, digest: str) -> Snapshot:
        """The state as a file stores it; the arrays are not copied.

        Args:
            digest: of the inputs of the run.
        """
        arrays, slots = self._arrays()
        good_arrays, good_slots = self._good.as_stored()
        arrays |= good_arrays
        slots |= good_slots
        if self.feedback is not None:
            own_arrays, own_slots = self.feedback.arrays()
            arrays |= own_arrays
            slots |= own_slots
        counters: dict[str, Any] = {
            "elapsed_s": self.elapsed_s,
            "average_weight": self._average_weight,
            "norm_state": list(self.norm_state),
            "watch": {
                name: None if value == math.inf else value
                for name, value in dataclasses.asdict(self.monitor).items()
            },
            "good": self._good.counters,
        }
        return Snapshot(self.theta | arrays, slots, self.step, digest, counters)

    def restore(self, snapshot: Snapshot) -> None:
        """Take over the state that a snapshot of the same run stores.

        Raises:
            RunFileError: the snapshot has other tensors than this run, or a number in it is
                impossible.
        """
        counters = StateCounters.read(snapshot.counters)
        self._check_fits(snapshot)
        step, weight, *norm_state = counters.good
        self._restore_arrays(*stored_copy(snapshot.theta, snapshot.slots))
        self.step, self._average_weight = int(step), float(weight)
        self.norm_state = float(norm_state[0]), float(norm_state[1])
        self._good = self._copied()
        self.theta = {name: np.array(snapshot.theta[name]) for name in self.theta}
        if self.feedback is not None:
            self.feedback.restore(snapshot.theta, snapshot.slots)
        self._restore_arrays(snapshot.theta, snapshot.slots)
        self.step = snapshot.step
        self.elapsed_s = counters.elapsed_s
        self._average_weight = counters.average_weight
        total, weight = counters.norm_state
        self.norm_state = (total, weight)
        self.monitor = counters.monitor()

    def _check_fits(self, snapshot: Snapshot) -> None:
        """Compare names, types and shapes with those of this state."""
        own = self.snapshot("")
        expected = _forms(own.theta, own.slots)
        found = _forms(snapshot.theta, snapshot.slots)
        if odd := expected.items() ^ found.items():
            name = min(name for name, _ in odd)
            raise RunFileError(
                f"snapshot: {name[:80]!r} is {found.get(name, 'missing')}, in this run "
                f"{expected.get(name, 'missing')}; remove the snapshot, the journal is enough to "
                f"resume"
            )


def _forms(theta: Mapping[str, Float32], slots: Mapping[str, Slot]) -> dict[str, str]:
    """Type and shape of every array, by name."""
    arrays: dict[str, npt.NDArray[Any]] = dict(theta)
    for name, slot in slots.items():
        arrays |= {f"{name}/{part}": value for part, value in (slot or {}).items()}
    return {name: f"{value.dtype} {value.shape}" for name, value in arrays.items()}


def _normalizer(config: TuneConfig) -> Normalizer | None:
    if not config.normalize and not config.clip:
        return None
    return Normalizer(clip=config.clip or math.inf, divide=config.normalize)


def _joined(rule: Slot, sampler: Slot) -> Slot:
    """The state of rule and sampler as one slot; None if neither has any."""
    own = {f"{_SAMPLER}{part}": value for part, value in (sampler or {}).items()}
    return {**(rule or {}), **own} or None


def _parted(slot: Slot) -> tuple[Slot, Slot]:
    """The state of the rule and that of the sampler, from the slot that `_joined` made."""
    found: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for part, value in (slot or {}).items():
        found[part.startswith(_SAMPLER)][part.removeprefix(_SAMPLER)] = value
    return found[0] or None, found[1] or None
