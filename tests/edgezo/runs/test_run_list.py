"""The runs below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo.runs.run_list import find_runs, read_runs
from edgezo_runtime.errors import RunFileError
from tests.edgezo.written_runs import written_run


def test_found_at_some_depth(tmp_path: Path) -> None:
    for name in ("b", "deep/er/a", "too/deep/for/it"):
        written_run(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["b", "deep/er/a"]
    assert find_runs(tmp_path / "b") == [tmp_path / "b"]
    with pytest.raises(RunFileError, match="no such folder"):
        find_runs(tmp_path / "none")


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    paths = [written_run(tmp_path / name) for name in "ab"]
    (paths[0] / "receipt.json").write_text("{")
    runs, problems = read_runs(paths)
    assert [run.name for run in runs] == ["b"]
    assert "receipt.json" in problems[0]
