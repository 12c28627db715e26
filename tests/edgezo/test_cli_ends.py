"""How a run of `edgezo tune` is limited, and what it says about its end."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgezo.cli.tune import evaluations
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


# --- ends ---


def test_a_run_that_its_time_ends_says_how_to_go_on(invoke: Invoke, tiny: Tiny) -> None:
    """It said no more than "done". The command that it names is taken as it is printed."""
    args = tune_args(tiny, *FAST, "--steps", "40", "--max-time", "0.05", "-o", "my run")
    last = invoke(*args).stdout.splitlines()[-1]
    receipt = json.loads(Path("my run/receipt.json").read_text())
    assert (receipt["status"], receipt["ended_by"]) == ("done", "time")
    assert (receipt["steps_planned"], receipt["max_time_s"]) == (40, 0.05)
    steps = receipt["steps"]
    assert 0 < steps < 40
    told, _, command = last.partition("; to go on: ")
    assert told == f"stopped after 50ms, its longest time, at step {steps} of 40"
    assert command == "edgezo tune --resume -o 'my run' --max-time 10s"
    done = invoke(*shlex.split(command)[1:], "--json")
    result = json.loads(done.stdout)
    assert (result["status"], result["ended_by"], result["steps"]) == ("done", "steps", 40)
    assert result["loss_before"] == receipt["loss_before"]
    assert "to go on" not in done.stderr


def test_with_json_the_line_is_a_note(invoke: Invoke, tiny: Tiny) -> None:
    done = invoke(*tune_args(tiny, *FAST, "--steps", "40", "--max-time", "0.01", "--json"))
    assert json.loads(done.stdout)["ended_by"] == "time"
    assert done.stderr.splitlines()[-1].startswith("stopped after 10ms, its longest time, at step ")


def test_a_run_without_planned_steps_ends_by_its_time(invoke: Invoke, tiny: Tiny) -> None:
    rates = ("--first-order", "0", "--lr", "0.01", "--eps", "0.01")
    done = invoke(*tune_args(tiny, *rates, "--steps", "0", "--max-time", "0.05"))
    receipt = json.loads(Path("run/receipt.json").read_text())
    assert (receipt["ended_by"], receipt["steps_planned"]) == ("time", None)
    assert done.stdout.splitlines()[-1].startswith("adapter ")


def test_without_a_limit_of_time_a_run_takes_its_passes(invoke: Invoke, tiny: Tiny) -> None:
    """`--max-time 0` was refused, as if there were no four passes."""
    args = tune_args(tiny, "--steps", "0", "--max-time", "0")
    settings = planned(invoke, *args)
    assert settings["rows"]["train"] == 40
    assert "20 steps, " in invoke(*args, "--dry-run").stdout
    refused = invoke(*args, "--method", "zo-sgd", "--dry-run", code=2).stderr
    assert "this run needs an end; give --steps, --epochs or a time" in refused
    some = invoke(*args, "--first-order", "1", "--dry-run", code=2).stderr  # and one block without
    assert "this run needs an end; give --steps, --epochs or a time" in some


def test_without_a_step_the_rows_are_evaluated_once(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[object] = []

    def counted(*args: Any, **more: Any) -> Any:
        found.append(args[2])
        return evaluate(*args, **more)

    evaluate = evaluations.evaluate
    monkeypatch.setattr(evaluations, "evaluate", counted)
    args = tune_args(tiny, "--steps", "3", "--max-time", "0.001", "--keep", "best")
    result = json.loads(invoke(*args, "--json").stdout)
    assert (result["steps"], len(found)) == (0, 1)
    assert result["loss_before"] == result["loss_after"] == result["loss_last"]
    lines = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    told = [(own["when"], own["loss"], own["rows"]) for own in lines if own["event"] == "eval"]
    assert told == [(when, result["loss_before"], 12) for when in ("before", "after")]
    rows = json.loads(Path("run/rows.json").read_text())["sets"]["valid"]
    assert rows["before"] == rows["after"]


@pytest.mark.slow
def test_a_run_that_measured_too_long_takes_no_step_and_says_so(invoke: Invoke, tiny: Tiny) -> None:
    args = tune_args(tiny, "--steps", "3", "--max-time", "0.001")
    last = invoke(*args).stdout.splitlines()[-1]
    assert last.startswith("stopped after 1ms, its longest time, before the first step; to go on: ")
    done = invoke(*shlex.split(last.partition("; to go on: ")[2])[1:], "--json")
    assert json.loads(done.stdout)["steps"] == 3


# --- rows that are evaluated ---


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny data, with test rows."""
    data = Path(shutil.copytree(tiny.data, tmp_path / "data"))
    (data / "valid.jsonl").rename(data / "val.jsonl")
    shutil.copy(data / "val.jsonl", data / "test.jsonl")
    return data


@pytest.mark.slow
def test_the_test_rows_of_a_folder_are_evaluated_at_the_end(
    invoke: Invoke, tiny: Tiny, folder: Path
) -> None:
    """They were not, though the help said that they belong to the data."""
    done = invoke(*tune_args(tiny, *FAST, "--data", folder))
    receipt = json.loads(Path("run/receipt.json").read_text())
    assert receipt["loss_test"] == receipt["loss_after"] is not None
    assert "test  " in done.stdout
    lines = Path("run/metrics.jsonl").read_text().splitlines()
    kinds = [(line["split"], line["when"]) for line in map(json.loads, lines) if "split" in line]
    assert kinds == [("valid", "before"), ("valid", "after"), ("test", "after")]
    config = json.loads(Path("run/config.json").read_text())
    assert config["test"] == str((folder / "test.jsonl").resolve())
    assert planned(invoke, "tune", "--resume", "-o", "run")["rows"].keys() == {
        "train", "valid", "test",
    }  # fmt: skip
    Path("run/config.json").write_text(json.dumps(config | {"test": None}))  # of earlier versions
    assert "test" not in planned(invoke, "tune", "--resume", "-o", "run")["rows"]


def test_splits_can_be_left_out(invoke: Invoke, tiny: Tiny, folder: Path) -> None:
    args = tune_args(tiny, *FAST, "--data", folder, "--valid", "none", "--test", "none")
    done = invoke(*args, "--json")
    result = json.loads(done.stdout)
    assert result["loss_before"] is result["loss_after"] is result["loss_test"] is None
    assert result["warnings"] == []
    again = planned(invoke, "tune", "--resume", "-o", "run")
    assert again["rows"].keys() == {"train"}
    assert (again["config"]["valid"], again["config"]["test"]) == ("none", "none")


def test_two_files_for_validation_are_refused(invoke: Invoke, tiny: Tiny, folder: Path) -> None:
    shutil.copy(folder / "val.jsonl", folder / "dev.jsonl")
    told = invoke(*tune_args(tiny, "--data", folder), code=5).stderr
    assert "val.jsonl and dev.jsonl" in told
    assert "--valid FILE" in told
    told = invoke("eval", tiny.int8, "--data", folder, code=5).stderr
    assert "name the file to use" in told
