"""Runs as their folders show them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from edgezo.runs.run_record import is_run, read_run
from edgezo_runtime.errors import RunFileError
from tests.edgezo.written_runs import eval_line, receipt, step_line, written_run


def test_a_run_that_is_done(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    assert (run.name, run.model, run.data, run.state) == ("run", "some/model-1M", "reviews", "done")
    assert (run.labels, run.kept_step) == ((" bad", " good"), 40)
    assert [own.step for own in run.valid] == [0, 40, 80]
    assert run.before is not None
    assert run.before.accuracy == 0.52
    assert run.after is not None
    assert run.after.accuracy == 0.84
    assert run.test is not None
    assert run.test.rows == 200
    assert (len(run.steps), run.steps.step[0], run.steps.step[-1]) == (80, 1, 80)
    assert run.seconds == 20
    assert run.peak_bytes == 301_000_000
    assert [(event.step, event.kind) for event in run.events] == [(10, "pressure")]


def test_a_killed_run_is_read_from_its_metrics(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run", ended={}))
    assert (run.state, run.kept_step, run.budget_bytes) == ("unfinished", 40, None)
    assert run.peak_bytes == 300_000_000
    assert run.model == "model.bundle"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("750MB", 750_000_000), ("50%", None), ("auto", None), ("many", None), (5, None)],
)
def test_a_run_that_goes_on_has_the_budget_of_its_settings(
    tmp_path: Path, given: object, expected: int | None
) -> None:
    run = read_run(written_run(tmp_path / "run", ended={}, settings={"budget": given}))
    assert run.budget_bytes == expected


def test_a_run_without_a_receipt_names_the_model_of_its_bundle(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/manifest.json").write_text('{"model": {"id": "owner/m"}}')
    settings = {"bundle": str(tmp_path / "b")}
    assert read_run(written_run(tmp_path / "run", ended={}, settings=settings)).model == "owner/m"
    (tmp_path / "b/manifest.json").write_text("{")
    assert read_run(tmp_path / "run").model == "b"


def test_a_later_session_that_was_killed(tmp_path: Path) -> None:
    """Its receipt is that of the session before."""
    run = read_run(written_run(tmp_path / "run", ended=receipt(steps=60)))
    assert run.state == "unfinished"


def test_scores_go_before_losses(tmp_path: Path) -> None:
    lines = [
        eval_line("before", 0, 1.0, None, score=0.1),
        step_line(0),
        eval_line("during", 1, 0.9, None, score=0.5),
        step_line(1),
        eval_line("after", 2, 0.5, None, score=0.4),
    ]
    run = read_run(written_run(tmp_path / "run", metrics=lines, ended={}))
    assert run.kept_step == 1


def test_metrics_of_an_earlier_version_lack_memory(tmp_path: Path) -> None:
    old = {"event": "step", "step": 0, "loss": None, "rows": True, "elapsed_s": 10**400}
    run = read_run(written_run(tmp_path / "run", metrics=[old], ended={}))
    assert all(math.isnan(column[0]) for column in (run.steps.loss, run.steps.memory_bytes))
    assert (run.seconds, run.peak_bytes, run.before) == (0, None, None)


def test_no_run(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(RunFileError, match="holds no run"):
        read_run(tmp_path)
    with pytest.raises(RunFileError, match="no such run folder"):
        read_run(tmp_path / "none")


@pytest.mark.parametrize("name", ["receipt.json", "config.json", "rows.json", "journal.bin"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    run = written_run(tmp_path / "run")
    (run / name).write_text("[" * 10)
    with pytest.raises(RunFileError, match=name.replace(".", r"\.")):
        read_run(run)


def test_several_data_files_have_short_names(tmp_path: Path) -> None:
    settings = {"data": ["/a/b/train.jsonl", "/a/more.csv", "device_commands"], "label": None}
    run = read_run(written_run(tmp_path / "run", settings=settings))
    assert run.data == "b, more.csv, device_commands"
    assert run.labels == ()
    assert json.loads((run.folder.path / "config.json").read_text()) == settings
