"""The file of a run's evaluations: what it keeps, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.evaluation_record import (
    EvaluationRecord,
    EvaluationRecords,
    read_evaluations,
)

ONE = EvaluationRecord(0, 0.5, 1.5, took_s=0.25)
TWO = EvaluationRecord(3, 2.0, 1.25, 0.75, -0.5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = EvaluationRecords("run", "rows", (ONE, TWO), 3)
    made.write(tmp_path / "e")
    assert read_evaluations(tmp_path / "e") == made
    assert read_evaluations(tmp_path / "other") is None


def test_a_step_has_one_record() -> None:
    again = EvaluationRecord(0, 0.5, 9.0)
    found = EvaluationRecords("", "").plus(TWO).plus(ONE).plus(again)
    assert found.records == (again, TWO)


def test_records_of_lost_steps_are_left_out() -> None:
    made = EvaluationRecords("", "", (ONE, TWO), 3)
    assert made.until(3) == made
    assert made.until(2) == EvaluationRecords("", "", (ONE,))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = EvaluationRecords("run", "rows", (ONE,))
    made.write(tmp_path / "e")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgezo_runtime.journal.versioned_file.atomic_write", full)
    with pytest.raises(RunFileError, match="No space left"):
        made.plus(TWO).write(tmp_path / "e")
    assert read_evaluations(tmp_path / "e") == made


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "has version 2, this edgezo reads 1"),
        ({"run": 3}, "run"),
        ({"more": 1}, "more"),
        ({"kept_step": -1}, "that no run writes"),
        ({"records": [{"step": -1, "seconds": 0.0, "loss": 1.0}]}, "that no run writes"),
        ({"records": [{"step": 1, "seconds": -1.0, "loss": 1.0}]}, "that no run writes"),
        ({"records": [{"step": 1, "seconds": 0.0, "loss": 1.0}] * 2}, "that no run writes"),
        ({"records": [{"step": 1, "seconds": 0.0}]}, "loss"),
    ],
)
def test_what_no_run_writes_is_refused(
    tmp_path: Path, change: dict[str, object], text: str
) -> None:
    content = {"run": "", "rows": "", "records": [], "kept_step": None, "version": 1, **change}
    (tmp_path / "e").write_text(json.dumps(content))
    with pytest.raises(RunFileError, match=text) as error:
        read_evaluations(tmp_path / "e")
    assert "remove it" in str(error.value)


def test_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"\xff")
    with pytest.raises(RunFileError, match="not the evaluations of a run"):
        read_evaluations(tmp_path / "e")
