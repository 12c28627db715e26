"""Every method reduces a convex and an ill-conditioned loss to a stated share of the first."""

import numpy as np
import pytest

from edgezo_runtime.methods.rules import RULES
from tests.contract.methods_table import TABLE, config_of
from tests.contract.quadratic_run import DIMS, SHAPES, Quadratic, QuadraticRun

BOUND = 0.06
TARGETS = {
    "convex": Quadratic(np.ones(DIMS), np.ones(DIMS), 0.01),
    "ill-conditioned": Quadratic(np.logspace(-3, 0.5, DIMS), np.ones(DIMS), 0.01),
}
RATES = {"sgd": 0.02, "sign": 0.04, "momentum": 0.002, "adam": 0.05, "helene": 0.03}


def share_left(target: str, method: str, steps: int, **given: object) -> float:
    """Loss after a run that starts at zero, as a share of the first."""
    loss = TARGETS[target]
    zero = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    run = QuadraticRun(config_of(method, rollback=False, **given), loss, zero)
    first = loss.losses(run.x[None]).mean()
    for _ in range(steps):
        run.step()
    return float(loss.losses(run.x[None]).mean() / first)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", TABLE)
def test_it_descends(method: str, target: str) -> None:
    assert share_left(target, method, TABLE[method].steps) < BOUND


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", ["auto", "rloo", "subzero"])
def test_rules_descend_with_other_estimates(method: str, rule: str) -> None:
    assert share_left("convex", method, 300, rule=rule, lr=RATES[rule]) < 0.3
