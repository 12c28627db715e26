"""How a run of `edgezo tune` is limited, and what it says about its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.edgezo.conftest import Invoke, Tiny, tune_args

FAST = ("--first-order-lr", "0.01")
"""In place of measuring it."""


def planned(invoke: Invoke, *args: object) -> dict[str, Any]:
    """The result of a dry run."""
    found: dict[str, Any] = json.loads(invoke(*args, "--dry-run", "--json").stdout)
    return found


# --- limits ---


def test_steps_have_no_time_limit_of_their_own(invoke: Invoke, tiny: Tiny) -> None:
    """`--steps 16` ended after 2 steps, at the default of five minutes."""
    args = tune_args(tiny, "--dry-run")
    assert "4 steps, " in invoke(*args).stdout
    assert "4 steps or 1m00s, " in invoke(*args, "--max-time", "1m").stdout
    without = invoke(*args, "--steps", "0").stdout  # four passes of five steps
    assert "20 steps or 5m00s, " in without


def test_a_run_of_an_earlier_version_keeps_its_longest_time(invoke: Invoke, tiny: Tiny) -> None:
    """Its config.json holds the former default."""
    invoke(*tune_args(tiny, *FAST, "--valid", tiny.prompts, "--data", tiny.prompts))
    file = Path("run/config.json")
    config = json.loads(file.read_text())
    assert config["max_time_s"] == "auto"
    again = planned(invoke, "tune", "--resume", "-o", "run")
    assert again["config"]["max_time_s"] == "auto"
    file.write_text(json.dumps(config | {"max_time_s": 300.0}))
    old = planned(invoke, "tune", "--resume", "-o", "run")
    assert old["config"] == config | {"max_time_s": 300.0}
