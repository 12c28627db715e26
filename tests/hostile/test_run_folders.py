"""Run folders whose files hold anything: they are read and reported, or refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgezo.report.as_json import report_as_json
from edgezo.report.markdown import markdown
from edgezo.report.page import html_page
from edgezo.report.poster import poster
from edgezo.report.row_texts import read_texts
from edgezo.runs.run_list import find_runs, read_runs
from edgezo.runs.run_record import read_run
from edgezo_runtime.errors import EdgezoError
from tests.edgezo.written_runs import receipt, rows_file, written_run

ODD: tuple[Any, ...] = (None, "x", -1, 2**70, 1e308, True, [], {}, [None], {"": 0}, [[1], "y"])


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    yield path
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value[:2])) if isinstance(value, list) else []
    for key, inner in items:
        yield from paths(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """A copy with another value at a path."""
    if not path:
        return odd
    found = copy.deepcopy(value)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return found


def report(folder: Path) -> None:
    """Read and report a run in every way."""
    run = read_run(folder)
    texts = read_texts(run)
    json.dumps(report_as_json([run], [texts]), allow_nan=False)
    for drawn in (html_page([run], [texts]), poster([run]), markdown([run], [texts])):
        assert drawn


def refusal(folder: Path) -> str | None:
    """Why a run is refused; None if it is reported."""
    try:
        report(folder)
    except EdgezoError as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["receipt.json", "rows.json", "config.json", "metrics.jsonl"])
def test_any_value_anywhere(tmp_path: Path, name: str) -> None:
    folder = written_run(tmp_path / "run")
    file, sound = folder / name, (folder / name).read_text()
    lines = sound.splitlines() if name == "metrics.jsonl" else [sound]
    tried = 0
    for at in sorted({0, 1, 11, len(lines) - 1} & set(range(len(lines)))):
        value = json.loads(lines[at])
        for number, path in enumerate(paths(value)):
            for other in [ODD[(number + at + more) % len(ODD)] for more in (0, 3, 7)]:
                text = json.dumps(changed(value, path, other))
                file.write_text("\n".join([*lines[:at], text, *lines[at + 1 :]]) + "\n")
                tried += 1
                refused = refusal(folder)
                assert refused is None or name in refused
    assert tried > 20


@pytest.mark.parametrize("text", ["", "{", "\x00", '{"a": 1e999}', "[" * 3000, '"\\ud800"'])
def test_files_that_are_no_json(tmp_path: Path, text: str) -> None:
    for name in ("receipt.json", "rows.json", "config.json", "metrics.jsonl"):
        folder = written_run(tmp_path / name)
        (folder / name).write_text(text)
    runs, problems = read_runs(find_runs(tmp_path))
    assert [run.name for run in runs] == ["metrics.jsonl"]
    assert len(problems) == 3


def test_the_files_that_are_changed_are_read(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    assert run.receipt == receipt()
    assert run.rows.sets.keys() == rows_file()["sets"].keys()
