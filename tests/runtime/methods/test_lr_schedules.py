"""Learning-rate schedules: their shapes, and runs beyond the horizon."""

import math

import pytest

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.lr_schedules import (
    LR_SCHEDULES,
    constant,
    cosine,
    linear,
    rate_factor,
    trapezoid,
)


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_lr_schedules_warm_up_to_one(name: str) -> None:
    schedule = LR_SCHEDULES[name]
    assert schedule(0.0, 0.0) == 1
    assert schedule(0.0, 0.2) == 0
    assert schedule(0.1, 0.2) == pytest.approx(0.5)
    assert schedule(0.2, 0.2) == 1
    assert all(0 <= schedule(i / 100, 0.3) <= 1 for i in range(101))


def test_lr_schedules_end_where_they_should() -> None:
    assert constant(1.0) == constant(0.5) == 1
    assert linear(0.25) == 0.75
    assert linear(0.6, 0.2) == pytest.approx(0.5)
    assert linear(1.0) == 0
    assert trapezoid(0.6) == 1
    assert trapezoid(0.8) == pytest.approx(0.5)
    assert trapezoid(1.0) == 0
    assert cosine(0.5) == pytest.approx(0.5)
    assert cosine(0.25) == pytest.approx(0.853553, abs=1e-6)
    assert cosine(1.0) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("fraction", "warmup"), [(-0.1, 0), (1.1, 0), (0.5, 1.0), (0.5, -0.1)])
def test_lr_schedules_refuse_what_is_out_of_range(fraction: float, warmup: float) -> None:
    with pytest.raises(UsageError, match="must be"):
        constant(fraction, warmup)


def test_a_step_takes_the_rate_of_its_middle() -> None:
    config = TuneConfig(steps=4, lr_schedule="linear")
    found = [rate_factor(config, step, step / 4) for step in range(4)]
    assert found == pytest.approx([7 / 8, 5 / 8, 3 / 8, 1 / 8])
    assert [rate_factor(TuneConfig(lr_schedule="cosine"), 3, 0.5)] == pytest.approx([0.5])


def test_the_last_step_is_within_the_schedule() -> None:
    """Its middle may be beyond the end where time ends a run before its steps do."""
    assert rate_factor(TuneConfig(steps=4), 3, 1.0) == 0.0


def test_runs_beyond_the_horizon_cover_the_same_distance() -> None:
    def rates(steps: int) -> list[float]:
        config = TuneConfig(steps=steps, horizon=100, lr_schedule="constant")
        return [rate_factor(config, step, step / steps) for step in range(steps)]

    assert sum(rates(50)) == pytest.approx(50)
    assert sum(rates(100)) == pytest.approx(100)
    assert sum(rates(400)) == pytest.approx(100)
    assert math.fsum(rate**2 for rate in rates(400)) == pytest.approx(25)


def test_runs_by_time_reckon_their_steps() -> None:
    config = TuneConfig(steps=0, max_time_s=60.0, horizon=100, lr_schedule="constant")
    assert rate_factor(config, 0, 0.0) == 1.0  # nothing is known yet
    assert rate_factor(config, 50, 0.25) == pytest.approx(0.5)  # 200 steps are expected
    assert rate_factor(config, 10, 0.25) == 1.0
    forever = TuneConfig(steps=0, max_time_s=60.0, horizon=0, lr_schedule="constant")
    assert rate_factor(forever, 50, 0.25) == 1.0
