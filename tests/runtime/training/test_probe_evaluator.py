"""Losses at probes, against passes over parameters that numpy perturbs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.errors import DivergedError
from edgezo_runtime.methods.estimators import Probe, Term
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.training.probe_evaluator import ProbeEvaluator
from edgezo_runtime.training.step_directions import StepDirections
from edgezo_runtime.training.trajectory import Trajectory
from tests.runtime.tuner_runs import BASE, state_bits

EVERYWHERE = dataclasses.replace(BASE, scope="all", method="zo-sgd", normalize=False, clip=0.0)
EPS = 0.25


@pytest.fixture
def parts(bundle: Bundle, examples: ExampleSet) -> tuple[ProbeEvaluator, Trajectory]:
    return made(bundle, examples)


def made(bundle: Bundle, examples: ExampleSet, **given: Any) -> tuple[ProbeEvaluator, Trajectory]:
    """An evaluator, and the state that it reads."""
    config = dataclasses.replace(EVERYWHERE, **given)
    trajectory = Trajectory(bundle, config, len(examples))
    return ProbeEvaluator(Engine(bundle), examples, trajectory.layout), trajectory


def by_hand(
    bundle: Bundle,
    trajectory: Trajectory,
    batch: Batch,
    probe: Probe,
    blocks: Sequence[int],
    row: int = 0,
) -> np.ndarray:
    """The losses of a batch with the trainables moved along the noise of a row."""
    theta = dict(trajectory.state.theta)
    for name in trajectory.layout.tensors(blocks):
        coeff = tuple(float(number == row) for number in range(row + 1))
        term = Term(probe.seed, coeff, private=row > 0)
        z = Frame(theta[name].shape).gradient([term], name, trajectory.settled.noise)
        theta[name] = theta[name] + np.float32(probe.scale) * z
    scores = Engine(bundle).score(batch, SharedParams(theta), scope="all")
    return example_losses(batch, scores)[0]


def test_a_loss_at_a_probe_is_that_of_moved_trainables(
    bundle: Bundle, parts: tuple[ProbeEvaluator, Trajectory]
) -> None:
    probes_of, trajectory = parts
    batch = probes_of.batches.batch(0)
    probes = [Probe(5, EPS), Probe(5, -EPS), Probe(6, 0.0)]
    for blocks in ((0, 1), (1,)):
        directions = StepDirections(trajectory.state)
        found = probes_of.losses(batch, blocks, probes, directions)
        assert found.shape == (3, batch.num_examples)
        for number, probe in enumerate(probes):
            expected = by_hand(bundle, trajectory, batch, probe, blocks)
            np.testing.assert_allclose(found[number], expected, rtol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 1e-3


def test_private_probes_move_every_example_its_own_way(
    bundle: Bundle, parts: tuple[ProbeEvaluator, Trajectory]
) -> None:
    probes_of, trajectory = parts
    batch = probes_of.batches.batch(0)
    probe = Probe(5, EPS, private=True)
    found = probes_of.losses(batch, (0, 1), [probe], StepDirections(trajectory.state))
    for row in range(batch.num_examples):
        expected = by_hand(bundle, trajectory, batch, probe, (0, 1), row)
        assert found[0, row] == pytest.approx(expected[row], rel=1e-5)


def test_an_estimate_is_half_the_difference_over_eps(
    parts: tuple[ProbeEvaluator, Trajectory],
) -> None:
    probes_of, trajectory = parts
    info = trajectory.info(0.03)
    batch = probes_of.batches.batch(0)
    before = state_bits(trajectory.state)
    losses, terms, rows = probes_of.estimate(
        trajectory.parts.estimator, info, batch, trajectory.state
    )
    assert losses.shape == (2, 1)
    assert rows == 2 * batch.num_rows
    (term,) = terms
    assert term.coeff == ((losses[0, 0] - losses[1, 0]) / (2 * BASE.eps),)
    assert state_bits(trajectory.state) == before


def test_an_estimate_of_the_loss_is_none_of_the_score(bundle: Bundle, examples: ExampleSet) -> None:
    probes_of, trajectory = made(bundle, examples, objective="accuracy")
    info, batch = trajectory.info(0.03), probes_of.batches.batch(0)
    estimator, state = trajectory.parts.estimator, trajectory.state
    scores, _, _ = probes_of.estimate(estimator, info, batch, state)
    losses, _, _ = probes_of.estimate(estimator, info, batch, state, on_loss=True)
    assert set(scores.reshape(-1).tolist()) <= {0.0, 0.5, 1.0}
    plain, other = made(bundle, examples)
    expected, _, _ = plain.estimate(other.parts.estimator, info, batch, other.state)
    np.testing.assert_array_equal(losses, expected)


def test_a_loss_that_is_not_finite_names_its_probe(
    parts: tuple[ProbeEvaluator, Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    probes_of, trajectory = parts
    trajectory.state.theta[next(iter(trajectory.state.slots))][0, 0] = np.inf
    with pytest.raises(DivergedError, match=r"is not finite at probe 0 of 2, seed .*, scale 0\.01"):
        probes_of.estimate(
            trajectory.parts.estimator,
            trajectory.info(0.03),
            probes_of.batches.batch(0),
            trajectory.state,
        )


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"blocks": "all"}, type(None)),
        ({"blocks": "1"}, PrefixCache),
        ({"blocks": "1", "scope": "answer"}, AnswerCache),
        ({"blocks": "all", "scope": "answer"}, AnswerCache),
    ],
)
def test_what_does_not_train_is_cached(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path, given: dict[str, str], kind: type
) -> None:
    probes_of, _ = made(bundle, examples, **given)
    cache = probes_of.make_cache(tmp_path / "prefix.cache")
    assert type(cache) is kind
    if cache is not None:
        cache.close()
    assert (tmp_path / "prefix.cache").exists() == (cache is not None)


def test_cached_states_change_losses_by_float16_alone(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    probes_of, trajectory = made(bundle, examples, blocks="1")
    batch, probes = probes_of.batches.batch(0), [Probe(5, EPS), Probe(5, -EPS)]
    plain = probes_of.losses(batch, (1,), probes, StepDirections(trajectory.state))
    probes_of.cache = probes_of.make_cache(tmp_path / "prefix.cache")
    first, second = (
        probes_of.losses(batch, (1,), probes, StepDirections(trajectory.state)) for _ in range(2)
    )
    assert probes_of.cache is not None
    probes_of.cache.close()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, plain, rtol=5e-3)


def test_further_examples_join_the_batches_from_a_step_on(
    bundle: Bundle, examples: ExampleSet
) -> None:
    probes_of, _ = made(bundle, examples.first(4), batch_size=4)
    before = [probes_of.batches.indices(step) for step in range(2)]
    assert all(sorted(indices) == [0, 1, 2, 3] for indices in before)
    probes_of.grow(examples, 2)
    assert probes_of.num_examples == 8
    after = [probes_of.batches.indices(step) for step in (2, 3)]
    assert sorted(after[0] + after[1]) == list(range(8))


def test_a_rehearsal_and_a_grant_change_nothing(bundle: Bundle, examples: ExampleSet) -> None:
    probes_of, trajectory = made(bundle, examples, blocks="1")
    before = state_bits(trajectory.state)
    for alone in (False, True):
        probes_of.rehearse(trajectory.parts.estimator, trajectory.state, [examples], alone=alone)
    assert probes_of.grant(trajectory.parts.estimator, 10**9, 64) == 0  # no texts
    assert state_bits(trajectory.state) == before
    assert probes_of.cache is None
