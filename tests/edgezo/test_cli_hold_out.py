"""`edgezo tune` without rows for validation: which rows it holds out, and what it says of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgezo_runtime.journal.journal import read_journal
from tests.edgezo.conftest import Invoke, Tiny, tune_args, write_rows


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder of 100 rows of two classes, without rows for validation."""
    folder = tmp_path / "rows"
    folder.mkdir()
    made: list[dict[str, object]] = [
        {"text": f"w{20 + n % 60} w{30 + n % 7} w{40 + n // 60}", "label": n % 2}
        for n in range(100)
    ]
    write_rows(folder / "train.jsonl", made)
    (folder / "task.json").write_text('{"template": "{text} w4", "labels": [" w10", " w11"]}')
    return folder


def header(run: Path) -> dict[str, object]:
    return dict(read_journal(run / "journal.bin").header.meta)


def test_a_run_holds_rows_out(invoke: Invoke, tiny: Tiny, rows: Path, tmp_path: Path) -> None:
    done = invoke(*tune_args(tiny, "--data", rows, "--json"))
    result = json.loads(done.stdout)
    assert (result["rows"], result["held_out"]) == (80, 20)
    assert result["loss_before"] > 0
    assert result["accuracy_after"] is not None
    assert "on 80 rows (20 more are held out: evaluated on, not tuned on)" in done.stderr
    assert (header(tmp_path / "run")["rows"], header(tmp_path / "run")["held_out"]) == (80, 20)


@pytest.mark.slow
def test_people_read_it(invoke: Invoke, tiny: Tiny, rows: Path) -> None:
    people = invoke(*tune_args(tiny, "--data", rows)).stdout
    assert "held out  20 of 100 rows: evaluated on, not tuned on" in people


@pytest.mark.slow
def test_none_holds_no_rows_out(invoke: Invoke, tiny: Tiny, rows: Path, tmp_path: Path) -> None:
    done = invoke(*tune_args(tiny, "--data", rows, "--valid", "none", "--json"))
    result = json.loads(done.stdout)
    assert (result["rows"], result["held_out"], result["loss_before"]) == (100, 0, None)
    assert not result["warnings"]
    assert "held_out" not in header(tmp_path / "run")  # as earlier versions wrote it
    assert json.loads((tmp_path / "run/config.json").read_text())["valid"] == "none"
    again = invoke("tune", "--resume", "-o", "run", "--steps", "5", "--json")
    assert json.loads(again.stdout)["rows"] == 100


@pytest.mark.slow
def test_none_leaves_the_rows_of_the_folder_out(invoke: Invoke, tiny: Tiny) -> None:
    result = json.loads(invoke(*tune_args(tiny, "--valid", "none", "--json")).stdout)
    assert (result["rows"], result["held_out"], result["loss_before"]) == (40, 0, None)


@pytest.mark.slow
def test_rows_for_validation_leave_all_others_to_tune_on(
    invoke: Invoke, tiny: Tiny, rows: Path
) -> None:
    args = tune_args(tiny, "--data", rows, "--valid", tiny.data / "valid.jsonl", "--json")
    result = json.loads(invoke(*args).stdout)
    assert (result["rows"], result["held_out"]) == (100, 0)


def test_too_few_rows_cause_one_warning(invoke: Invoke, tiny: Tiny) -> None:
    done = invoke(*tune_args(tiny, "--data", tiny.prompts, "--json"))
    (warning,) = json.loads(done.stdout)["warnings"]
    assert "24 rows are too few to hold out 20" in warning
    assert "give --valid to see" in warning
    assert warning in done.stderr


@pytest.mark.slow
def test_a_dry_run_and_a_plan_say_it(invoke: Invoke, tiny: Tiny, rows: Path) -> None:
    dry = json.loads(invoke(*tune_args(tiny, "--data", rows, "--dry-run", "--json")).stdout)
    assert dry["rows"] == {"train": 80, "valid": 20}
    assert dry["held_out"] == 20
    args = ["plan", tiny.int8, "--budget", "8GB", "--data", rows]
    assert json.loads(invoke(*args, "--json").stdout)["held_out"] == 20
    assert "held out  20 of 100 rows" in invoke(*args).stdout


@pytest.mark.slow
def test_a_resumed_run_trains_on_the_same_rows(
    invoke: Invoke, tiny: Tiny, rows: Path, tmp_path: Path
) -> None:
    args = tune_args(tiny, "--data", rows, "--lr-schedule", "constant", "--keep", "last", "--json")
    whole = json.loads(invoke(*args, "--steps", "6", "-o", "whole").stdout)
    invoke(*args, "--steps", "3")
    result = json.loads(invoke("tune", "--resume", "-o", "run", "--steps", "6", "--json").stdout)
    assert result["adapter_sha256"] == whole["adapter_sha256"]
    assert result["held_out"] == 20
    assert result["loss_after"] == whole["loss_after"]


@pytest.mark.slow
def test_what_is_evaluated_does_not_change_what_is_trained_on(
    invoke: Invoke, tiny: Tiny, rows: Path
) -> None:
    """A run that holds rows out keeps them out, whatever it is resumed with."""
    invoke(*tune_args(tiny, "--data", rows, "--json"))
    for valid, before in (("none", None), (tiny.data / "valid.jsonl", 1)):
        args = ("tune", "--resume", "-o", "run", "--valid", valid, "--json", "--steps", "5")
        result = json.loads(invoke(*args).stdout)
        assert (result["rows"], result["held_out"]) == (80, 20)
        assert (result["loss_after"] is None) == (before is None)


@pytest.mark.slow
def test_runs_of_earlier_versions_resume_with_all_rows(
    invoke: Invoke, tiny: Tiny, rows: Path, tmp_path: Path
) -> None:
    """Their config.json has no word of held-out rows, and their journals have all rows."""
    settings = ("--lr-schedule", "constant", "--json")
    args = tune_args(tiny, "--data", rows, "--valid", "none", *settings)
    whole = json.loads(invoke(*args, "-o", "whole", "--steps", "6").stdout)
    invoke(*args, "--steps", "3")
    file = tmp_path / "run/config.json"
    config = json.loads(file.read_text())
    del config["keep"]
    file.write_text(json.dumps(config | {"valid": None, "eval_every_s": 0.0}))
    shutil.copytree(tmp_path / "run", tmp_path / "same")
    again = ("tune", "--resume", "-o", "run", "--steps", "6", "--json")
    same = tune_args(tiny, "--data", rows, *settings, "--steps", "6", "-o", "same")
    for command in (again, same):
        done = invoke(*command)
        result = json.loads(done.stdout)
        assert (result["rows"], result["held_out"]) == (100, 0)
        assert result["adapter_sha256"] == whole["adapter_sha256"]
        assert "the run was begun without held-out rows" in done.stderr


@pytest.mark.slow
def test_the_seed_of_the_run_chooses(invoke: Invoke, tiny: Tiny, rows: Path) -> None:
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        invoke(*tune_args(tiny, "--data", rows, "--seed", seed, "--steps", 1, "-o", number))
        digests.append(header(Path(str(number)))["tokens"])
    assert digests[0] == digests[1] != digests[2]
