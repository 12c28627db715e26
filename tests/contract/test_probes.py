"""Probes leave everything as it was, and a run's numbers depend on its seed alone."""

from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.snapshot import load_snapshot, save_snapshot
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.methods.estimators import replay_estimator
from edgezo_runtime.methods.rules import RULES
from tests.contract.methods_table import TABLE, config_of
from tests.contract.quadratic_run import DIMS, SHAPES, Quadratic, QuadraticRun, start

TARGET = Quadratic(np.linspace(0.5, 3, DIMS), np.ones(DIMS), 0.3)
STEPS = 5


def bits_after(steps: int, method: str, **given: object) -> dict[str, bytes]:
    run = QuadraticRun(config_of(method, **given), TARGET)
    for _ in range(steps):
        run.step()
    return run.bits()


@pytest.mark.parametrize("method", TABLE)
def test_probes_alone_change_nothing(method: str) -> None:
    run = QuadraticRun(config_of(method), TARGET)
    for _ in range(STEPS):
        before, info = run.bits(), run.info()
        losses, terms = run.estimate(info)
        assert run.bits() == before
        again, same_terms = run.estimate(info)
        np.testing.assert_array_equal(losses, again)
        assert terms == same_terms
        run.state.apply(run.record(info, losses), terms)
        assert run.bits() != before


@pytest.mark.parametrize("method", TABLE)
def test_what_the_caller_gave_is_untouched(method: str) -> None:
    """Trainables by the harness's own copy of them, losses that an estimator is sent."""
    run = QuadraticRun(config_of(method), TARGET)
    info, sent = run.info(), []
    steps = run.parts.estimator(info)
    probes = next(steps)
    while True:
        rows = len(range(4)) if probes[0].private else 1
        losses = np.random.default_rng(len(sent)).normal(size=(len(probes), rows))
        sent.append((losses, losses.copy()))
        losses.flags.writeable = False
        try:
            probes = steps.send(losses)
        except StopIteration as end:
            record = run.record(info, np.concatenate([given for given, _ in sent]))
            kept = [(term, term.coeff) for term in end.value]
            run.state.apply(record, end.value)
            assert all(term.coeff == coeff for term, coeff in kept)
            break
    for given, copy in sent:
        np.testing.assert_array_equal(given, copy)


@pytest.mark.parametrize("method", TABLE)
def test_same_seed_same_bits(method: str) -> None:
    first = bits_after(STEPS, method)
    assert bits_after(STEPS, method) == first
    other = bits_after(STEPS, method, seed=1)
    assert sum(other[name] != first[name] for name in SHAPES) >= 3  # lezo may leave out a block


@pytest.mark.parametrize("method", TABLE)
def test_types_and_shapes_stay(method: str) -> None:
    run = QuadraticRun(config_of(method), TARGET)
    before = run.state.snapshot("")
    kinds = [(v.dtype, v.shape) for v in before.theta.values()]
    slots = {name: sorted(slot or {}) for name, slot in before.slots.items()}
    for _ in range(STEPS):
        run.step()
    after = run.state.snapshot("")
    assert [(v.dtype, v.shape) for v in after.theta.values()] == kinds
    assert all(np.isfinite(v).all() for v in after.theta.values())
    assert {name: sorted(slot or {}) for name, slot in after.slots.items()} == slots


@pytest.mark.slow
@pytest.mark.parametrize("method", TABLE)
def test_a_restored_state_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    """From a snapshot at any step, and from losses alone; refreshes and anchors lie between."""
    whole = QuadraticRun(config_of(method), TARGET)
    records = []
    for step in range(8):
        save_snapshot(tmp_path / f"{step}", whole.state.snapshot(""))
        records.append(whole.step())
    for kept in (None, 0, 2, 3, 4, 7):
        run = QuadraticRun(config_of(method), TARGET)
        if kept is not None:
            run.state.restore(load_snapshot(tmp_path / f"{kept}"))
        for record in records[kept or 0 :]:
            replay(run, record.losses.astype(np.float64))
        assert run.bits() == whole.bits()


def replay(run: QuadraticRun, losses: np.ndarray) -> None:
    """A recorded step, as a resume takes it."""
    info = run.info()
    terms = replay_estimator(run.parts.estimator, info, losses)
    run.state.apply(run.record(info, losses), terms)


@pytest.mark.slow
def test_every_rule_goes_with_every_method_that_takes_one() -> None:
    for method in (name for name, made in METHODS.items() if made.any_rule):
        ends = [bits_after(6, method, rule=rule, lr=0.01) for rule in RULES]
        assert len({tuple(end[name] for name in SHAPES) for end in ends}) == len(RULES)
        with pytest.raises(UsageError, match="`rule` lion: expected one of"):
            bits_after(1, method, rule="lion")


def test_the_initial_trainables_are_not_shared_between_runs() -> None:
    initial = start()
    before = {name: value.copy() for name, value in initial.items()}
    run = QuadraticRun(config_of("zo-adam"), TARGET, initial)
    run.step()
    for name, value in initial.items():
        np.testing.assert_array_equal(value, before[name])
