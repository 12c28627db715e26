"""How much of a run is done, and which limit ends it."""

from __future__ import annotations

import pytest

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.methods.run_length import fraction_done, limit_reached


@pytest.mark.parametrize(
    ("given", "step", "elapsed_s", "measured_s", "expected", "limit"),
    [
        ({"steps": 10, "max_time_s": 0.0}, 4, 99.0, 0.0, 0.4, None),
        ({"steps": 0, "max_time_s": 20.0}, 4, 5.0, 0.0, 0.25, None),
        ({"steps": 10, "max_time_s": 20.0}, 4, 5.0, 0.0, 0.4, None),
        ({"steps": 10, "max_time_s": 20.0}, 4, 15.0, 0.0, 0.75, None),
        ({"steps": 0, "max_time_s": 20.0}, 0, 4.0, 4.0, 0.0, None),  # the measurement is over
        ({"steps": 0, "max_time_s": 20.0}, 1, 12.0, 4.0, 0.5, None),
        (
            {"steps": 0, "max_time_s": 4.0},
            0,
            4.0,
            4.0,
            1.0,
            "time",
        ),  # it took all the time there is
        ({"steps": 4, "max_time_s": 20.0}, 4, 19.0, 0.0, 1.0, "steps"),
        ({"steps": 4, "max_time_s": 20.0}, 4, 20.0, 0.0, 1.0, "steps"),  # both at once
        ({"steps": 4, "max_time_s": 20.0}, 3, 20.0, 0.0, 1.0, "time"),
        ({"steps": 4, "max_time_s": 0.0}, 3, 1e9, 0.0, 0.75, None),
    ],
)
def test_the_further_of_steps_and_time_counts(
    given: dict[str, float],
    step: int,
    elapsed_s: float,
    measured_s: float,
    expected: float,
    limit: str | None,
) -> None:
    config = TuneConfig(**given)  # type: ignore[arg-type]
    assert fraction_done(config, step, elapsed_s, measured_s) == pytest.approx(expected)
    assert limit_reached(config, step, elapsed_s, measured_s) == limit
