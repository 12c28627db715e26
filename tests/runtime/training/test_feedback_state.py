"""What a run knows of its feedback: from records, and through snapshots to the same bits."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from edgezo_runtime.errors import DivergedError, RunFileError
from edgezo_runtime.journal.step_record import RecordExtra, StepRecord
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.feedback_estimate import FeedbackEstimate
from edgezo_runtime.training.feedback_layout import FeedbackLayout
from edgezo_runtime.training.feedback_state import SIDES, FeedbackState

CLASSES, ROWS = 3, 4


@pytest.fixture
def layout(exported) -> FeedbackLayout:
    manifest = exported("llama").bundle("fp32").manifest
    return FeedbackLayout(manifest, method_config("feedback", pairs=10, blocks="all"))


@pytest.fixture
def normed(exported) -> FeedbackLayout:
    """Of a model with norms between its layers and the residual."""
    manifest = exported("gemma3_text").bundle("fp32").manifest
    return FeedbackLayout(manifest, method_config("feedback", pairs=10, blocks="all"))


def slopes(layout: FeedbackLayout) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(6)
    return {
        site.name_b: generator.lognormal(1, 2, (ROWS, site.shape_b[0])).astype(np.float32)
        for site in layout.sites
    }


def record(step: int, classes: int = CLASSES) -> StepRecord:
    losses = np.random.default_rng(step).normal(0, 1, (SIDES + classes - 1, ROWS))
    return StepRecord(step, 100 + step, 0.1, (), losses)


def inputs(layout: FeedbackLayout) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    return {
        site.name_a: generator.normal(1, 1, (ROWS, site.shape_a[1])).astype(np.float32)
        for site in layout.sites
    }


def extra(state: FeedbackState) -> bytes:
    """Of the next record of pairs."""
    return state.pack_inputs(inputs(state.layout)) if state.completes(ROWS) else b""


def observed(state: FeedbackState, steps: range) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for step in steps:
        found = state.observe(record(step), extra(state))
    return found


def test_the_last_pairs_set_the_directions(layout):
    state = FeedbackState(layout, 2.0)
    assert observed(state, range(2)) == {}
    assert (state.learning, state.pairs) == (True, 8)
    found = observed(state, range(2, 3))
    assert (state.learning, state.pairs) == (False, 12)
    estimate = FeedbackEstimate(layout.sites, CLASSES - 1)
    for step in range(3):
        estimate.add(100 + step, record(step).losses[SIDES:].T)
    sizes = {}
    for name, x in inputs(layout).items():
        mean = x.mean(axis=0)
        unit = state.units[name]
        np.testing.assert_allclose(unit, mean / np.linalg.norm(mean), atol=0.005)  # of 8 bits
        sizes[name] = float(np.abs(x - 0.9 * np.outer(x @ unit, unit)).sum(axis=1).mean())
    expected = estimate.directions(2.0, sizes)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_the_last_pairs_carry_slopes_of_norms(layout, normed):
    """B follows from their means; records without norms are as long as they always were."""
    state = FeedbackState(normed, 2.0)
    assert (layout.slopes.nbytes, normed.slopes.nbytes) == (0, 4 * 4 * 64)
    plain = FeedbackState(layout, 2.0).pack_inputs(inputs(layout))
    assert len(plain) == layout.means.nbytes + 4 * len(layout.sites)
    observed_slopes = slopes(normed)
    packed = state.pack_inputs(inputs(normed), observed_slopes)
    last = RecordExtra(1.0, packed, 0).pack()
    assert state.extra_bytes(dataclasses.replace(record(2), extra=last)) == len(packed)
    for step in range(2):
        state.observe(record(step), b"")
    differences = record(2).losses[SIDES:].astype(np.float64)
    state.check_last(102, differences, packed)
    cut = packed[: -normed.slopes.nbytes]
    with pytest.raises(RunFileError, match="let no change through"):
        copy.deepcopy(state).observe(record(2), cut + bytes(normed.slopes.nbytes))
    found = state.observe(record(2), packed)
    estimate = FeedbackEstimate(normed.sites, CLASSES - 1)
    for step in range(3):
        estimate.add(100 + step, record(step).losses[SIDES:].T)
    sizes = np.frombuffer(cut[normed.means.nbytes :], "<f4").astype(np.float64)
    own = {site.name_a: float(size) for site, size in zip(normed.sites, sizes, strict=True)}
    means = {name: value.mean(axis=0) for name, value in observed_slopes.items()}
    for name, value in estimate.directions(2.0, own, means).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_snapshots_carry_everything(layout, known):
    whole, parts = FeedbackState(layout, 1.0), FeedbackState(layout, 1.0)
    expected = observed(whole, range(3))
    observed(parts, range(known))
    other = FeedbackState(layout, 1.0)
    observed(other, range(2, 3))  # what it knew is forgotten
    theta, slots = parts.arrays()
    forms = {name: value.shape for name, value in theta.items()}
    assert forms == {name: value.shape for name, value in whole.arrays()[0].items()}
    other.restore(
        {name: value.copy() for name, value in theta.items()},
        {name: {k: v.copy() for k, v in slot.items()} for name, slot in slots.items()},
    )
    assert other.pairs == ROWS * known
    found = observed(other, range(known, 3))
    assert all((other.units[name] == unit).all() for name, unit in whole.units.items())
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("tally", [(-1, 2), (4, 0), (0, 2), (4, 2**30)])
def test_impossible_counts_are_refused(layout, tally):
    theta, slots = FeedbackState(layout, 1.0).arrays()
    changed = {name: {**slot, "tally": np.array(tally)} for name, slot in slots.items()}
    with pytest.raises(RunFileError, match="counts of pairs are impossible"):
        FeedbackState(layout, 1.0).restore(theta, changed)


def test_means_come_with_the_last_pairs(layout):
    state = FeedbackState(layout, 1.0)
    with pytest.raises(RunFileError, match="step 0 has means of inputs before the last pairs"):
        state.observe(record(0), state.pack_inputs(inputs(layout)))


def test_bytes_of_records(layout):
    state = FeedbackState(layout, 1.0)
    pairs = record(0)
    gradient = dataclasses.replace(pairs, losses=pairs.losses[:1])
    empty = dataclasses.replace(pairs, losses=np.empty((0, 0)))
    assert [state.has_pairs(each) for each in (pairs, gradient)] == [True, False]
    packed = state.pack_inputs(inputs(layout))
    assert state.extra_bytes(dataclasses.replace(pairs, extra=bytes(4 + 10))) == 0
    last = RecordExtra(1.0, packed, 0).pack()
    assert state.extra_bytes(dataclasses.replace(pairs, extra=last)) == len(packed)
    assert state.extra_bytes(gradient) == layout.codec.nbytes
    assert state.extra_bytes(empty) == 0


@pytest.mark.parametrize("damage", ["classes", "short", "nan", "negative", "huge"])
def test_damaged_records_are_refused(layout, damage):
    state = FeedbackState(layout, 1.0)
    observed(state, range(2))
    own, data = record(2), extra(state)
    if damage == "classes":
        own = record(2, classes=5)
    elif damage == "huge":
        own = dataclasses.replace(own, losses=own.losses * np.float32(1e30))
    elif damage == "short":
        data = data[:-4]
    else:
        value = np.nan if damage == "nan" else -1.0
        data = data[: layout.means.nbytes]
        data += np.array([value] * len(layout.sites), "<f4").tobytes()
    with pytest.raises(RunFileError, match="step 2 has"):
        state.observe(own, data)


def test_last_pairs_without_an_answer_are_refused_before_their_record(layout):
    """The state stays as it is, and good pairs may follow."""
    state, other = FeedbackState(layout, 1.0), FeedbackState(layout, 1.0)
    observed(other, range(3))
    observed(state, range(2))
    data, good = extra(state), record(2)
    state.check_last(good.seed, good.losses[SIDES:].astype(np.float64), data)
    bare = FeedbackState(layout, 1.0)
    with pytest.raises(DivergedError, match="begin a new run with another `eps`"):
        bare.check_last(7, np.zeros((CLASSES - 1, ROWS)), data)
    assert bare.estimate is None
    assert state.pairs == 2 * ROWS
    state.observe(good, data)
    for name, value in other.estimate.sums.items():
        np.testing.assert_array_equal(state.estimate.sums[name], value)
