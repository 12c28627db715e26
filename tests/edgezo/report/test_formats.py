"""Reports as Markdown, JSON and pictures."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgezo.pictures.theme import DARK
from edgezo.report.as_json import report_as_json
from edgezo.report.markdown import markdown
from edgezo.report.png import ZOOM, png
from edgezo.report.poster import WIDTH, poster
from edgezo.report.row_texts import RowText, RunTexts, Sample
from edgezo.runs.run_record import read_run
from edgezo_runtime.errors import EdgezoError
from tests.edgezo.written_runs import receipt, written_run


def test_markdown(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    row = run.rows.sets["valid"]["after"].worst[0]
    worst = {"valid": {"after": [RowText(row, "a | b\n<i> *x*", " good")]}}
    text = markdown([run], [RunTexts(worst, [Sample("p", "r", "b", "a")])])
    lines = text.splitlines()
    assert "| accuracy | 52.0 % → 84.0 % | +32.0 points on 50 validation rows |" in lines
    assert "| valid | during | 40 | 0.4000 | 0.84 | - |" in lines
    assert "|  bad | 20 | 5 |".replace("  ", " ") in lines
    assert r"- line 1, loss 5.000, right good: a \| b \<i\> \*x\*" in lines
    assert "| p | b | a | r |" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_commands_with_line_ends_are_left_out(tmp_path: Path) -> None:
    settings = {"bundle": "a\n```\n# heading", "test": ["rows.jsonl"]}
    run = read_run(written_run(tmp_path / "run", settings=settings))
    text = markdown([run], [RunTexts()])
    fenced = text.split("```sh\n")[1].split("\n```")[0]
    assert "edgezo tune --config" in fenced
    assert "edgezo adapter export" in fenced
    assert "edgezo replay" not in text
    assert "\n# heading" not in text


def test_json_has_the_curves(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    (found,) = json.loads(json.dumps(report_as_json([run], [RunTexts(note="none")])))["runs"]
    assert len(found["steps_by_column"]["loss"]) == 80
    assert found["rows"]["valid"]["after"]["confusion"] == [[20, 5], [3, 22]]
    low, high = found["evaluations"][0]["accuracy_95"]
    assert low < 0.52 < high
    assert (found["kept_step"], found["texts_note"]) == (40, "none")


def test_a_poster_is_a_file_of_its_own(tmp_path: Path) -> None:
    runs = [read_run(written_run(tmp_path / name)) for name in "ab"]
    for shown in (runs[:1], runs):
        svg = poster(shown)
        tree = ElementTree.fromstring(svg)
        assert tree.get("viewBox", "").startswith(f"0 0 {WIDTH:.0f} ")
        assert "var(" not in svg
        told = "".join(tree.itertext())
        assert "Resident memory of the process" in told
        assert "84.0 %" in told
    assert DARK["page"] in poster(runs[:1], DARK)


def test_long_names_are_cut(tmp_path: Path) -> None:
    long = receipt(model="owner/" + "m" * 200, steps_planned=1_000_000)
    runs = [read_run(written_run(tmp_path / (name * 90), ended=long)) for name in "ab"]
    for shown in (runs[:1], runs):
        for text in ElementTree.fromstring(poster(shown)).iter("{http://www.w3.org/2000/svg}text"):
            assert len(text.text or "") * 6.9 <= WIDTH


@pytest.mark.skipif(find_spec("resvg_py") is None, reason="resvg-py is not installed")
def test_png_has_the_size_and_the_colours(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    image = png(poster([run]))
    assert image.startswith(b"\x89PNG")
    assert int.from_bytes(image[16:20], "big") == WIDTH * ZOOM
    with pytest.raises(EdgezoError, match="cannot be drawn"):
        png("<svg")
