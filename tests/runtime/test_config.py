"""The configuration of a run: its identity, and what "auto" stands for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgezo_runtime.config import TuneConfig


def test_the_identity_has_all_that_changes_the_numbers() -> None:
    names = {field.name for field in dataclasses.fields(TuneConfig)}
    assert names - TuneConfig().identity().keys() == {"steps", "max_time_s", "save_every", "keep"}
    assert TuneConfig(lr=0.5).identity()["lr"] == 0.5


def test_every_field_has_a_help() -> None:
    assert all(field.metadata["help"] for field in dataclasses.fields(TuneConfig))


@pytest.mark.parametrize(
    ("given", "first_order", "batch", "steps"),
    [
        ({}, True, 16, 250),
        ({}, False, 128, 0),
        ({"steps": 7}, True, 16, 7),
        ({"steps": 7, "epochs": 0.008}, False, 128, 1),
        ({"batch_size": 300, "epochs": 2}, False, 300, 7),
        ({"batch_size": 5000, "epochs": 2}, True, 5000, 2),
    ],
)
def test_batches_and_the_end_of_a_run(
    given: dict[str, Any], first_order: bool, batch: int, steps: int
) -> None:
    settled = TuneConfig(**given).settled(1000, all_first_order=first_order)
    assert (settled.batch_size, settled.steps) == (batch, steps)


@pytest.mark.parametrize(
    ("rows", "steps"), [(1000, 375 + 60), (20_000, 7500 + 60), (600, 375 + 60), (160, 120 + 60)]
)
def test_feedback_passes_more_often_over_few_rows(rows: int, steps: int) -> None:
    """Six times, or until 6,000 rows are seen, at most twelve times."""
    settled = TuneConfig().settled(rows, all_first_order=True, pairs=960)
    assert (settled.batch_size, settled.steps) == (16, steps)


@pytest.mark.parametrize(
    ("given", "longest_s"),
    [
        ({}, 300.0),
        ({"steps": 16}, 0.0),
        ({"epochs": 2.0}, 0.0),
        ({"epochs": 0}, 300.0),
        ({"epochs": 0, "steps": 3}, 0.0),
        ({"steps": 16, "max_time_s": 30.0}, 30.0),
        ({"epochs": 2.0, "max_time_s": 300.0}, 300.0),
        ({"max_time_s": 0, "epochs": 1}, 0.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("first_order", [True, False])
def test_the_default_longest_time_is_for_runs_without_steps_or_epochs(
    given: dict[str, Any], longest_s: float, first_order: bool
) -> None:
    """`--steps 16` ended after 2 steps, at the default of five minutes."""
    settled = TuneConfig(**given).settled(1000, all_first_order=first_order)
    assert settled.max_time_s == longest_s


@pytest.mark.parametrize(
    ("given", "wants"),
    [
        ({}, True),
        ({"first_order": 0}, False),
        ({"method": "zo-sgd"}, False),
        ({"lr": 0.1}, False),
        ({"eps": 0.1}, False),
        ({"rule": "adam"}, False),
        ({"schedule": "last:3"}, False),
        ({"normalize": False}, False),
        ({"clip": 0.0}, False),
        ({"blocks": "1-2", "scope": "all", "steps": 3}, True),
    ],
    ids=str,
)
def test_who_asks_for_estimates_gets_them(given: dict[str, Any], wants: bool) -> None:
    assert TuneConfig(**given).wants_first_order is wants
