"""`edgezo report` and `edgezo runs` on runs that were tuned."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from edgezo.cli.runs.list_runs import columns
from edgezo.report.comparison import HEADER
from tests.edgezo.conftest import Invoke, Tiny, tune_args
from tests.edgezo.written_runs import written_run


@pytest.fixture
def tuned(tiny: Tiny, invoke: Invoke) -> Path:
    """A run of four steps on rows of two classes."""
    invoke(*tune_args(tiny))
    return Path("run")


def test_a_tuned_run_stores_what_its_report_shows(tuned: Path, invoke: Invoke) -> None:
    lines = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    assert all(0 < line["memory_bytes"] <= line["peak_bytes"] for line in steps)
    invoke("report", tuned, "-o", "out.json", "--samples", "0")
    (found,) = json.loads(Path("out.json").read_text())["runs"]
    for when, step in (("before", 0), ("after", 4)):
        own = found["rows"]["valid"][when]
        evaluation = next(own for own in found["evaluations"] if own["step"] == step)
        right = sum(own["confusion"][label][label] for label in (0, 1))
        assert right / own["rows"] == pytest.approx(evaluation["accuracy"])
        assert own["rows"] == sum(map(sum, own["confusion"])) == 12
        losses = [row["loss"] for row in own["worst"]]
        assert losses == sorted(losses, reverse=True)
        assert len(losses) == 10
        rest = own["loss"] * 12 - math.fsum(losses)
        assert 0 <= rest <= 2 * losses[-1] + 1e-9
    rows = (Path(found["settings"]["data"]) / "valid.jsonl").read_text().splitlines()
    data = [json.loads(row) for row in rows]
    for row, text in zip(
        found["rows"]["valid"]["after"]["worst"], found["texts"]["valid"]["after"], strict=True
    ):
        line = data[row["line"] - 1]
        assert text["prompt"] == f"{line['text']} w4"
        assert row["label"] == line["label"]


def test_a_resumed_run_keeps_its_rows(tiny: Tiny, invoke: Invoke) -> None:
    invoke(*tune_args(tiny, "--steps", 2))
    before = json.loads(Path("run/rows.json").read_text())["sets"]["valid"]["before"]
    invoke(*tune_args(tiny, "--steps", 4))
    found = json.loads(Path("run/rows.json").read_text())["sets"]["valid"]
    assert found["before"] == before
    assert found["after"]["step"] == 4


def test_texts_before_and_after(tiny: Tiny, invoke: Invoke) -> None:
    data = ["--data", tiny.prompts, "--valid", tiny.prompts]
    invoke(*tune_args(tiny, *data, "--max-seq", 32))
    invoke("report", "run", "-o", "out.json")
    (found,) = json.loads(Path("out.json").read_text())["runs"]
    assert [own["prompt"] for own in found["samples"]] == ["w20 w5", "w21 w5", "w22 w5"]
    assert [own["right"] for own in found["samples"]] == ["w21 w6", "w22 w6", "w23 w6"]
    assert all(own["before"] for own in found["samples"])
    assert found["rows"]["valid"]["after"]["confusion"] == []


def test_every_format(tmp_path: Path, invoke: Invoke) -> None:
    run = written_run(tmp_path / "one")
    for name, start in (("a.html", "<!doctype"), ("a.svg", "<svg"), ("a.md", "# Run")):
        result = json.loads(invoke("report", run, "-o", name, "--json").stdout)
        assert Path(name).read_text(encoding="utf-8").startswith(start)
        assert result["bytes"] == Path(name).stat().st_size
    invoke("report", run, "-o", "a.txt", "--format", "md", "--no-texts")
    assert "no-texts" in Path("a.txt").read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "a.pdf"), "the suffix is that of no format"),
        (("-o", "a.html"), "exists; choose another place or pass --force"),
        (("-o", "one/metrics.jsonl", "--format", "json", "--force"), "is an input"),
        (("-o", "one"), "suffix"),
        (("--samples", "4"), "0<=x<=3"),
    ],
)
def test_wrong_usage(tmp_path: Path, invoke: Invoke, arguments: list[str], message: str) -> None:
    written_run(tmp_path / "one")
    Path("a.html").touch()
    assert message in invoke("report", "one", *arguments, code=2).output


def test_no_run(tmp_path: Path, invoke: Invoke) -> None:
    assert "holds no run" in invoke("report", tmp_path, code=1).output
    assert "no such run folder" in invoke("runs", "show", "none", code=1).output


def test_a_table_of_runs(tmp_path: Path, invoke: Invoke) -> None:
    for name in ("b", "a"):
        written_run(tmp_path / "runs" / name)
    lines = invoke("runs").stdout.splitlines()
    assert lines[0].split() == [
        "run", "model", "data", "method", "before", "after", "test", "time", "peak", "state",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:]] == ["b", "a"]
    assert [line[0] for line in invoke("runs", "--sort", "run").stdout.splitlines()[1:]] == [*"ab"]
    found = json.loads(invoke("runs", "runs", "--json", "--sort", "after", "--reverse").stdout)
    assert [own["score_after"] for own in found["runs"]] == [0.84, 0.84]
    (tmp_path / "runs/a/rows.json").write_text("{")
    result = invoke("runs")
    assert "rows.json" in result.stderr
    assert len(result.stdout.splitlines()) == 2


def test_a_single_run(tmp_path: Path, invoke: Invoke) -> None:
    written_run(tmp_path / "one")
    told = invoke("runs", "show", "one").stdout
    assert "52.0 % -> 84.0 %" in told
    assert "edgezo replay" in told
    assert json.loads(invoke("runs", "show", "one", "--json").stdout)["state"] == "done"


def test_removed_runs(tmp_path: Path, invoke: Invoke) -> None:
    for name in "abc":
        written_run(tmp_path / name)
    (tmp_path / "b" / "rows.json").write_text("{")  # a damaged run goes, too
    assert "no such run folder" in invoke("runs", "rm", "a", "none", "--yes", code=1).output
    assert Path("a").exists()
    assert "nothing was removed" in invoke("runs", "rm", "a", code=2).output
    assert json.loads(invoke("runs", "rm", "a", "b", "--yes", "--json").stdout)["removed"] == [
        *"ab"
    ]
    assert [Path(name).exists() for name in "abc"] == [False, False, True]


def test_a_narrow_terminal_leaves_columns_out() -> None:
    """Lines of 81 characters were wrapped on 40 columns."""
    rows = [HEADER, ("a-run-of-mine", "some/model", "reviews", "auto", "52.0 %", "84.0 %",
            "80.0 %", "20s", "301 MB", "done")]  # fmt: skip
    assert columns(rows, None)[0].split() == list(HEADER)
    assert [line.split() for line in columns(rows, 40)] == [
        ["run", "before", "after", "test", "state"],
        ["a-run-..", "52.0", "%", "84.0", "%", "80.0", "%", "done"],
    ]  # fmt: skip
    for width in (40, 50, 60, 70, 80, 200):
        assert all(len(line) <= width for line in columns(rows, width))
