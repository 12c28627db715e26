"""The contract table: every estimator with every rule brings a loss down, in repeatable bits.

Both dicts are read here, so a new estimator has its rows already; a new rule needs one line in
`LEARNING_RATES`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.estimators import ESTIMATORS, gradient, record_losses
from edgezo_runtime.noise import derive_seed, noise
from edgezo_runtime.rules import RULES

Float32Array = npt.NDArray[np.float32]
SHAPES = {"a.lora_A": (2, 4), "a.lora_B": (4, 2)}
DIMS, BATCH, EPS, STEPS = 16, 4, 1e-3, 300
JITTER = np.random.default_rng(3).normal(scale=0.01, size=(BATCH, DIMS))
LEARNING_RATES = {"sgd": 0.02, "momentum": 0.002, "adam": 0.05}


@dataclass(frozen=True)
class Target:
    """l_b(x) = sum_i h_i (x_i - 1 - jitter_bi)^2 / 2; starts at 0, least loss close to 0."""

    curvature: npt.NDArray[np.float64]
    bound: float  # fraction of the first loss that must not be left after STEPS

    def losses(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Evaluate (B or 1, D) theta as each example sees it; returns (B,)."""
        return np.asarray((self.curvature * (x - 1 - JITTER) ** 2).sum(axis=1) / 2)


TARGETS = {
    "convex": Target(np.ones(DIMS), 0.05),
    "ill-conditioned": Target(np.logspace(-3, 0.5, DIMS), 0.05),
}


def perturbed(
    params: dict[str, Float32Array], seed: int, scale: float, private: bool
) -> npt.NDArray[np.float64]:
    """Theta as each example sees it at a probe, or once for all of them: (B or 1, D)."""
    rows = [
        [
            theta + np.float32(scale) * noise(seed, name, theta.shape, kind="rademacher", row=row)
            for name, theta in params.items()
        ]
        for row in (range(BATCH) if private else [0])
    ]
    flat = [np.concatenate([part.reshape(-1) for part in parts]) for parts in rows]
    return np.stack(flat).astype(np.float64)


def train(
    estimator_name: str, rule_name: str, target: Target, *, steps: int = STEPS, seed: int = 0
) -> tuple[dict[str, Float32Array], list[float]]:
    estimator, rule = ESTIMATORS[estimator_name](EPS), RULES[rule_name]()
    params = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    slots = {name: rule.init(theta) for name, theta in params.items()}
    curve = []
    for step in range(steps):
        before = {name: theta.tobytes() for name, theta in params.items()}
        generator = estimator(derive_seed(seed, "step", step), BATCH)
        probes = next(generator)
        while True:
            losses = np.stack(
                [target.losses(perturbed(params, p.seed, p.scale, p.private)) for p in probes]
            )
            try:
                probes = generator.send(record_losses(losses, probes))
            except StopIteration as done:
                terms = done.value
                break
        assert {name: theta.tobytes() for name, theta in params.items()} == before
        for name, theta in params.items():
            g = gradient(terms, name, theta.shape, kind="rademacher")
            slots[name] = rule.apply(theta, g, slots[name], step, LEARNING_RATES[rule_name])
        curve.append(float(losses.mean()))
    return params, curve


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_falls_below_the_bound(estimator: str, rule: str, target: str) -> None:
    params, curve = train(estimator, rule, TARGETS[target])
    assert np.mean(curve[-10:]) < TARGETS[target].bound * curve[0]
    for name, theta in params.items():
        assert theta.shape == SHAPES[name]
        assert theta.dtype == np.float32


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_same_seed_same_bits(estimator: str, rule: str) -> None:
    runs = [train(estimator, rule, TARGETS["convex"], steps=15, seed=s)[0] for s in (0, 0, 1)]
    bits = [{name: theta.tobytes() for name, theta in params.items()} for params in runs]
    assert bits[0] == bits[1]
    assert bits[0] != bits[2]
