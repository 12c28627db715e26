"""Results of single rows that are damaged, or cannot be written: the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo.cli.tune.evaluations import rows_until, write_rows
from edgezo.runs.evaluated_rows import EvaluatedRows, RowResults, read_rows
from tests.edgezo.conftest import Invoke, Tiny, tune_args


def test_a_damaged_file_is_begun_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    assert rows_until(path, 3) == EvaluatedRows()
    assert not capsys.readouterr().err
    path.write_text("{")
    assert rows_until(path, 3) == EvaluatedRows()
    assert "rows.json" in capsys.readouterr().err
    rows = EvaluatedRows().plus("valid", "after", RowResults(4, 10, 0.5))
    write_rows(rows, path)
    assert rows_until(path, 4) == rows
    assert rows_until(path, 3) == EvaluatedRows()


def test_a_write_that_fails_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(EvaluatedRows(), tmp_path / "missing" / "rows.json")
    assert "warning: " in capsys.readouterr().err


def test_a_run_with_a_damaged_file_resumes(tiny: Tiny, invoke: Invoke) -> None:
    args = tune_args(tiny)
    invoke(*args)
    Path("run/rows.json").write_text("{")
    result = invoke("tune", "--resume", "-o", "run", "--json")
    assert json.loads(result.stdout)["steps"] == 4
    assert "the file is begun again" in result.stderr
    assert read_rows(Path("run/rows.json")).sets["valid"]
