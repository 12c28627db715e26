"""The state of a run: what a step changes, what an average holds, what a snapshot keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.catalogue import assemble
from edgezo_runtime.methods.estimators import Term
from edgezo_runtime.noise import noise
from edgezo_runtime.training.divergence import MOST_RETURNS
from edgezo_runtime.training.training_state import TrainingState
from tests.runtime.tuner_runs import (
    BASE,
    state_bits,
    with_both_factors,
)

pytestmark = pytest.mark.usefixtures("unsynced")


INITIAL = {
    "0.a": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "1.b": np.linspace(2, 3, 5, dtype=np.float32),
    "1.c": np.full(3, 0.5, np.float32),
}
BLOCKS = {"0.a": 0, "1.b": 1}
PLAIN = TuneConfig(
    method="zo-sgd", lr=0.25, eps=0.5, normalize=False, clip=0.0, average=0.0, rollback=False
)


def made(
    config: TuneConfig = PLAIN, first_order: dict[str, float] | None = None, **options: Any
) -> TrainingState:
    initial = {name: value.copy() for name, value in INITIAL.items()}
    return TrainingState(initial, BLOCKS, config, assemble(config, 0.5), first_order, **options)


def record(step: int = 0, losses: Any = ((0.5,), (0.25,)), **given: Any) -> StepRecord:
    values: dict[str, Any] = {"seed": 9, "lr": 0.25, "blocks": (0, 1), **given}
    return StepRecord(step, values["seed"], values["lr"], values["blocks"], np.array(losses))


def z(seed: int, name: str) -> np.ndarray:
    return noise(seed, name, INITIAL[name].shape, kind="rademacher")


def test_a_step_moves_what_trains_along_its_noise() -> None:
    """theta - lr (2 z_3 - z_4), and nothing in blocks that are not active."""
    state = made()
    terms = [Term(3, (2.0,)), Term(4, (-1.0,))]
    expected = {name: INITIAL[name] - 0.25 * (2 * z(3, name) - z(4, name)) for name in BLOCKS}
    state.apply(record(blocks=(1,)), terms)
    np.testing.assert_allclose(state.theta["1.b"], expected["1.b"], rtol=1e-6)
    for name in ("0.a", "1.c"):
        np.testing.assert_array_equal(state.theta[name], INITIAL[name])
    state.apply(record(1, blocks=(0,)), terms)
    np.testing.assert_allclose(state.theta["0.a"], expected["0.a"], rtol=1e-6, atol=1e-7)
    assert state.step == 2


def test_a_gradient_is_that_of_the_blocks_it_is_asked_for() -> None:
    terms = [Term(3, (2.0,)), Term(4, (7.0,), blocks=(0,))]
    (found,) = made().gradients(terms, [1])
    np.testing.assert_allclose(found, 2 * z(3, "1.b"), rtol=1e-6)


def test_exact_gradients_take_a_step_of_adam() -> None:
    """The first one goes as far as the learning rate, against the sign of the gradient."""
    state = made(first_order={"1.c": 0.5})
    state.apply(record(), [], {"1.c": np.array([3.0, -2.0, 0.0], np.float32)})
    step = np.array([-0.125, 0.125, 0.0])
    np.testing.assert_allclose(state.theta["1.c"], INITIAL["1.c"] + step, rtol=1e-5)


def test_scales_stay_above_zero() -> None:
    state = made(scales=["1.b"])
    state.apply(record(), [Term(3, (100.0,))])
    assert (state.theta["1.b"] >= 0).all()
    assert (state.theta["1.b"] == 0).any()
    assert (state.theta["0.a"] < 0).any()


@pytest.mark.parametrize("losses", [np.empty((0, 0)), "diverged"])
def test_a_rollback_returns_to_the_last_copy_at_half_the_rate(losses: Any) -> None:
    """Nothing was good yet: the copy is that of the beginning."""
    state = made(dataclasses.replace(PLAIN, rollback=True, average=0.5))
    before = state.adapter()
    steps = 1 if not isinstance(losses, str) else 20
    for step in range(steps):
        found = losses if steps == 1 else [[1.0 if step < 11 else 50.0]]
        state.apply(record(step, found), [Term(step, (1.0,))])
        if state.events:
            break
    assert state.step == step + 1
    (event,) = state.events
    assert event.startswith(f"step {step + 1}: ")
    assert event.endswith("learning rate halved")
    assert (state.monitor.factor, state.monitor.returns) == (0.5, 1)
    for name, value in state.adapter().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_run_that_rolls_back_too_often_is_hopeless() -> None:
    state = made(dataclasses.replace(PLAIN, rollback=True))
    for step in range(MOST_RETURNS):
        state.apply(record(step, np.empty((0, 0))), [])
    assert state.hopeless == ""
    state.apply(record(MOST_RETURNS, np.empty((0, 0))), [])
    assert state.hopeless.startswith(f"step {MOST_RETURNS + 1}: diverged for the 9th time")


@pytest.mark.parametrize(
    ("method", "setting"), [("feedback", "`lr`"), ("zo-sgd", "`first_order_lr`")]
)
def test_a_hopeless_run_names_the_rate_that_it_steps_by(method: str, setting: str) -> None:
    config = dataclasses.replace(PLAIN, rollback=True, method=method)
    parts = assemble(PLAIN, 0.5)
    state = TrainingState({"1.c": np.ones(2, np.float32)}, {}, config, parts, {"1.c": 0.5})
    for step in range(MOST_RETURNS + 1):
        state.apply(record(step, np.empty((0, 0))), [])
    assert f"give a smaller {setting}" in state.hopeless


SHAPED = TuneConfig(
    method="zo-adam", lr=0.25, eps=0.5, average=0.5, first_order=1, first_order_lr=0.25
)


def stepped(steps: int) -> TrainingState:
    state = made(SHAPED, {"1.c": 0.5})
    more(state, steps)
    return state


def more(state: TrainingState, steps: int) -> None:
    for step in range(state.step, state.step + steps):
        exact = {"1.c": np.full(3, 0.1 * step, np.float32)}
        state.apply(record(step, [[1.0 - 0.01 * step]]), [Term(step, (0.5,))], exact)
        state.elapsed_s = 0.5 * (step + 1)


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_a_snapshot_brings_the_state_back(steps: int) -> None:
    """After 30 steps there is a copy to return to besides the first one."""
    state = stepped(steps)
    other = stepped(2)
    other.restore(state.snapshot("digest"))
    assert state_bits(other) == state_bits(state)
    assert (other.step, other.elapsed_s) == (state.step, state.elapsed_s)
    for both in (state, other):
        more(both, 3)
        both.apply(record(both.step, np.empty((0, 0))), [])
    assert state_bits(other) == state_bits(state)
    assert other.events == state.events
    assert other.nbytes == state.nbytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda theta: theta.pop("1.c"), "'1.c' is missing"),
        (lambda theta: theta.update({"2.d": theta["1.c"]}), "in this run missing"),
        (lambda theta: theta.update({"1.b": np.ones(4, np.float32)}), r"\(4,\), in this run .*5"),
    ],
)
def test_a_snapshot_of_other_tensors_is_refused(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    state = stepped(2)
    before = state_bits(state)
    snapshot = stepped(1).snapshot("digest")
    theta = dict(snapshot.theta)
    change(theta)
    with pytest.raises(RunFileError, match=message):
        state.restore(dataclasses.replace(snapshot, theta=theta))
    assert state_bits(state) == before


# --- in a run ---


def test_a_frozen_factor_never_changes(bundle, examples, tmp_path):
    both = with_both_factors(bundle, tmp_path / "ab")
    for own, changes in ((bundle, {"lora_B"}), (both, {"lora_A", "lora_B"})):
        initial = own.trainables()
        with Tuner.open(own, examples, BASE, tmp_path / f"run{len(changes)}") as tuner:
            for _ in tuner:
                pass
            adapter = tuner.adapter()
        changed = {
            name.rpartition(".")[2] for name in adapter if (adapter[name] != initial[name]).any()
        }
        assert changed == changes
        assert all(value.dtype == np.float32 for value in adapter.values())


@pytest.mark.parametrize(("schedule", "blocks"), [("last:1", "auto"), ("all", "1")])
def test_blocks_that_do_not_train_keep_their_bits(bundle, examples, tmp_path, schedule, blocks):
    config = dataclasses.replace(BASE, schedule=schedule, blocks=blocks)
    initial = bundle.trainables()
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        assert (tmp_path / "prefix.cache").exists()
        reports = list(tuner)
        adapter = tuner.adapter()
    assert {report.blocks for report in reports} == {(1,)}
    own = {info.name: info.block for info in bundle.manifest.trainables if info.trains}
    for name, block in own.items():
        assert (adapter[name] != initial[name]).any() == (block == 1)


def test_the_adapter_is_the_running_average(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, average=0.5, steps=3)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        name = next(iter(tuner.run.state.slots))
        np.testing.assert_array_equal(tuner.adapter()[name], tuner.run.state.theta[name])
        seen = [(tuner.step(), tuner.run.state.theta[name].copy())[1] for _ in range(3)]
        expected = sum(value * 0.5 ** (3 - i) for i, value in enumerate(seen)) / (1 - 0.5**3)
        np.testing.assert_allclose(tuner.adapter()[name], expected, rtol=1e-5, atol=1e-7)
        handed_out = tuner.adapter()
        for value in handed_out.values():
            value[:] = np.nan
        assert all(np.isfinite(value).all() for value in tuner.run.state.theta.values())
        assert all(np.isfinite(value).all() for value in tuner.adapter().values())
    config = dataclasses.replace(BASE, average=0.0, steps=3)
    with Tuner.open(bundle, examples, config, tmp_path / "plain") as tuner:
        list(tuner)
        np.testing.assert_array_equal(tuner.adapter()[name], tuner.run.state.theta[name])
