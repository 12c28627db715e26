"""What a session says about its end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgezo.cli.tune.run_end import (
    Failure,
    describe_end,
    early_end,
    longer_time,
    resume_command,
)
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import BudgetStopError, DivergedError, RewardError
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.step_report import EndedBy, TunerStatus


def run_at(ended_by: EndedBy | None) -> Run:
    """A run of nine steps or half a minute, whose steps were ended by this."""
    status = TunerStatus(4, 0.5, 9.0, 0.4, "done", ended_by=ended_by, steps_planned=9)
    settled = TuneConfig(steps=9, max_time_s=30.0)
    trajectory = SimpleNamespace(settled=settled)
    return cast(Run, SimpleNamespace(status=lambda begun: status, trajectory=trajectory))


@pytest.mark.parametrize(
    ("ended_by", "failure", "interrupted", "expected"),
    [
        ("steps", None, False, ("done", "steps")),
        ("time", None, False, ("done", "time")),
        ("stop", None, True, ("interrupted", "interrupt")),
        (None, None, True, ("interrupted", "interrupt")),
        ("steps", None, True, ("interrupted", "steps")),  # during the last evaluation
        (None, DivergedError("x"), False, ("diverged", "divergence")),
        (None, RewardError("x"), False, ("reward-failed", "reward")),
        (None, BudgetStopError("x"), False, ("out-of-memory", "memory")),
        ("time", BudgetStopError("x"), False, ("out-of-memory", "time")),
    ],
)
def test_status_and_end(
    ended_by: EndedBy | None, failure: Failure | None, interrupted: bool, expected: tuple[str, str]
) -> None:
    found = describe_end(run_at(ended_by), failure, interrupted=interrupted)
    assert (found["status"], found["ended_by"]) == expected
    assert (found["steps_planned"], found["max_time_s"]) == (9, 30.0)
    assert ("error" in found) == (failure is not None)


def test_the_command_is_one_for_a_shell() -> None:
    assert resume_command(Path("run")) == "edgezo tune --resume -o run"
    assert resume_command(Path("my run"), "a b.py:f", "--max-time", "5m") == (
        "edgezo tune --resume -o 'my run' --reward 'a b.py:f' --max-time 5m"
    )


@pytest.mark.parametrize(
    ("seconds", "longest_s", "steps", "planned", "expected"),
    [
        (30.0, 30.0, 43, 225, "4m"),  # 1.2 * 30 * 225 / 43 = 188
        (31.0, 30.0, 200, 225, "70s"),  # at least twice what it took
        (4.0, 1.0, 0, 225, "10s"),
        (50.0, 50.0, 5, 12, "3m"),  # 144
        (60.0, 60.0, 9, 10, "120s"),
        (300.0, 300.0, 2, 16, "48m"),
        (300.0, 300.0, 2, 60, "3h"),  # exactly 10,800 s
        (300.0, 300.0, 2, 10**6, "50000h"),
        (0.0, 1e-3, 0, None, "10s"),
    ],
)
def test_the_time_that_is_named_is_enough(
    seconds: float, longest_s: float, steps: int, planned: int | None, expected: str
) -> None:
    assert longer_time(seconds, longest_s, steps, planned) == expected


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "stopped after 30s, its longest time, at step 43 of 225; to go on: "),
        ({"steps": 0}, "stopped after 30s, its longest time, before the first step; to go on: "),
        ({"steps": 0, "steps_planned": None}, "stopped after 30s, its longest time, before the "),
        ({"steps_planned": None}, None),
        ({"ended_by": "steps"}, None),
        ({"status": "interrupted"}, None),
    ],
    ids=str,
)
def test_only_time_ends_a_run_early(changed: dict[str, Any], told: str | None) -> None:
    result = {
        "status": "done", "ended_by": "time", "steps": 43, "steps_planned": 225,
        "seconds": 31.2, "max_time_s": 30.0, **changed,
    }  # fmt: skip
    found = early_end(result, Path("run"))
    assert (found or "").startswith(told or "")
    assert (found is None) == (told is None)
