"""A step moves along the directions of its probes, to rounding, whatever changes between steps."""

from dataclasses import dataclass

import numpy as np
import pytest

from edgezo_runtime.engine.perturbed import PerturbedParams
from edgezo_runtime.methods.estimators import Probe
from edgezo_runtime.methods.rules import Slot
from edgezo_runtime.training.step_directions import StepDirections
from tests.contract.methods_table import TABLE, config_of
from tests.contract.quadratic_run import (
    BATCH,
    BLOCKS,
    DIMS,
    SHAPES,
    SIZES,
    Float32,
    Float64,
    Quadratic,
    QuadraticRun,
    copies,
)

TARGET = Quadratic(np.ones(DIMS), np.ones(DIMS), 0.0)
EPS = 0.5  # coarse, so that a difference of copies tells z to nearly all of its bits
MOVING = {"hizoo": {"smoothing": 0.2}, "sparse": {"sparsity": 0.5}, "auto": {"normalize": False}}
"""What moves fast: H, the mask. The rest has its refresh in the table."""


@dataclass(frozen=True)
class Plain:
    """theta - lr g, and an anchor that is somewhere else."""

    def init(self, theta: Float32) -> Slot:
        return {"anchor": theta + 1}

    def apply(self, theta: Float32, g: Float32, slot: Slot, step: int, lr: float) -> Slot:
        theta -= np.float32(lr) * g
        return slot


class Watched:
    """Made-up losses, and the z of every probe as the copies show it: (seed, name) -> (B, size).

    Args:
        seed: of the losses.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.z: dict[tuple[int, str], Float64] = {}

    def __call__(
        self, probes: list[Probe], params: PerturbedParams, directions: StepDirections
    ) -> Float64:
        for name in SHAPES:
            made = copies(params, name, len(probes))
            for own, probe in zip(made, probes, strict=True):
                moves = probe.blocks is None or BLOCKS[name] in probe.blocks
                base = directions.base(name, anchored=probe.anchored).reshape(-1)
                if probe.scale == 0 or not moves:
                    np.testing.assert_array_equal(own, np.broadcast_to(base, own.shape))
                    continue
                z = (own.astype(np.float64) - base) / probe.scale
                known = self.z.setdefault((probe.seed, name), z)
                # on both sides, at the anchor too, the same z; a small scale tells less of it
                np.testing.assert_allclose(z, known, atol=1e-5 + 1e-6 / abs(probe.scale))
        return self._random.normal(size=(len(probes), BATCH))


@pytest.mark.parametrize("method", TABLE)
def test_a_step_goes_along_what_was_probed(method: str) -> None:
    given = {**MOVING.get(method, {}), "clip": 0.0, "average": 0.0, "rollback": False}
    config = config_of(method, lr=0.125, eps=EPS, **given)
    run = QuadraticRun(config, TARGET, rule=Plain())
    seen = []
    for step in range(8):  # the subspaces of the table change at 3 and 6
        before = {name: theta.astype(np.float64) for name, theta in run.state.theta.items()}
        info, watched = run.info(), Watched(step)
        losses, terms = run.estimate(info, watched)
        run.state.apply(run.record(info, losses), terms)
        for name, theta in run.state.theta.items():
            expected = np.zeros(SIZES[name])
            for term in terms if BLOCKS[name] in info.blocks else []:
                if term.concerns(BLOCKS[name]) and any(term.coeff):
                    z = watched.z[term.seed, name]
                    expected += np.array(term.coeff) @ z[: len(term.coeff)]
            moved = (before[name] - theta).reshape(-1) / 0.125
            bound = 1e-5 * (1 + np.abs(expected).max())
            np.testing.assert_allclose(moved, expected, rtol=0, atol=bound)
        seen.append(watched.z)
    assert all(seen)


@pytest.mark.parametrize(("method", "rank"), [("subzero", 2), ("lozo", 2), ("lozo-m", 2)])
def test_subspaces_last_as_long_as_said(method: str, rank: int) -> None:
    """Rows of all z of an interval span `rank` dimensions; those of two intervals more."""
    run = QuadraticRun(config_of(method, eps=EPS), TARGET, rule=Plain())
    found = []
    for step in range(6):
        watched = Watched(step)
        info = run.info()
        losses, terms = run.estimate(info, watched)
        run.state.apply(run.record(info, losses), terms)
        found.append(watched.z[info.seed, "2.c"][0].reshape(SHAPES["2.c"]))

    def dimensions(steps: slice) -> int:
        return int(np.linalg.matrix_rank(np.concatenate(found[steps]), tol=1e-3))

    assert [dimensions(slice(0, 3)), dimensions(slice(3, 6))] == [rank, rank]
    assert dimensions(slice(2, 4)) > rank


def test_curvature_and_masks_did_move() -> None:
    """Or the test above would show nothing."""
    for method, given in (("hizoo", {}), ("sparse", {"lr": 0.125})):
        run = QuadraticRun(config_of(method, **{**MOVING[method], **given}), TARGET)
        ones = np.ones((1, 12), np.float32)
        frames = []
        for _ in range(8):
            frames.append(run.state.frame("1.b").lift(ones))
            run.step()
        assert all((frames[0] != frame).any() for frame in frames[4:])
