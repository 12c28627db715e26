"""Resume: snapshot and journal bring back the bits of a run that never stopped, for every rule."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.estimators import ESTIMATORS, Losses, Probe, gradient, record_losses
from edgezo_runtime.journal import Journal, read_journal
from edgezo_runtime.noise import derive_seed, noise
from edgezo_runtime.rules import RULES, Rule, Slot
from edgezo_runtime.schedules import parse_schedule
from edgezo_runtime.snapshot import Snapshot, load_snapshot, save_snapshot
from edgezo_runtime.step_record import StepRecord

NAMES = ("0.lora_B", "1.lora_B", "2.lora_B")  # one tensor a block
SEED, BATCH, STEPS, LR = 0, 3, 12, 0.0078125
SCHEDULE = parse_schedule("random:2")


class Run:
    """A loop in miniature: evaluate or replay, then apply."""

    def __init__(self, estimator: str, rule: Rule) -> None:
        self.estimator, self.rule, self.step = ESTIMATORS[estimator](1e-3), rule, 0
        self.theta = {name: np.zeros((4, 2), np.float32) for name in NAMES}
        self.slots: dict[str, Slot] = {name: rule.init(t) for name, t in self.theta.items()}

    def evaluate(self, probe: Probe, active: tuple[int, ...]) -> npt.NDArray[np.float64]:
        losses = np.zeros(BATCH)
        for b in range(BATCH):
            for block, (name, theta) in enumerate(self.theta.items()):
                z = noise(probe.seed, name, theta.shape, kind="gaussian", row=b * probe.private)
                x = theta + np.float32(probe.scale * (block in active)) * z
                losses[b] += np.square(x.astype(np.float64) - 1 - b).sum()
        return losses

    def take_step(self, journal: Journal | None, record: StepRecord | None = None) -> None:
        blocks = record.blocks if record else SCHEDULE(self.step, SEED, range(len(NAMES)))
        seed = record.seed if record else derive_seed(SEED, "step", self.step)
        steps = self.estimator(seed, BATCH)
        probes = next(steps)
        if record:
            losses: Losses = record.losses.astype(np.float64)
        else:
            losses = record_losses(np.stack([self.evaluate(p, blocks) for p in probes]), probes)
        if journal:
            journal.append(StepRecord(self.step, seed, LR, blocks, losses))
        with pytest.raises(StopIteration) as done:
            steps.send(losses)
        for name in (NAMES[block] for block in blocks):
            theta = self.theta[name]
            g = gradient(done.value.value, name, theta.shape, kind="gaussian")
            lr = record.lr if record else LR
            self.slots[name] = self.rule.apply(theta, g, self.slots[name], self.step, lr)
        self.step += 1

    def bits(self) -> dict[str, bytes]:
        slots = {f"{n} {k}": v for n, slot in self.slots.items() for k, v in (slot or {}).items()}
        return {name: value.tobytes() for name, value in {**self.theta, **slots}.items()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run_cut_anywhere_ends_with_the_same_bits(
    tmp_path: Path, estimator: str, rule: str
) -> None:
    whole = Run(estimator, RULES[rule]())
    with Journal.create(tmp_path / "whole", {}) as journal:
        for _ in range(STEPS):
            whole.take_step(journal)

    cut = Run(estimator, RULES[rule]())
    with Journal.create(tmp_path / "cut", {}) as journal:
        for step in range(9):
            if step == 5:
                state = Snapshot(cut.theta, cut.slots, cut.step, "")
                save_snapshot(tmp_path / "snapshot", state)
            cut.take_step(journal)
    data = (tmp_path / "cut").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-7])  # the power fails while step 8 is written

    resumed, state = Run(estimator, RULES[rule]()), load_snapshot(tmp_path / "snapshot")
    resumed.theta, resumed.step = dict(state.theta), state.step
    resumed.slots = dict(state.slots)
    with Journal.open(tmp_path / "cut") as journal:
        for record in read_journal(tmp_path / "cut").records:
            if record.step >= resumed.step:
                resumed.take_step(None, record)
        assert resumed.step == 8
        for _ in range(STEPS - resumed.step):
            resumed.take_step(journal)
    assert resumed.bits() == whole.bits()
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()

    replayed = Run(estimator, RULES[rule]())  # from the journal alone
    for record in read_journal(tmp_path / "whole").records:
        replayed.take_step(None, record)
    assert replayed.bits() == whole.bits()
