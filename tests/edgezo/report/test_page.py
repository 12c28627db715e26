"""Pages: what they say, that they need nothing else, and how they look in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgezo.report.page import html_page
from edgezo.report.row_texts import RowText, RunTexts, Sample
from edgezo.runs.run_record import RunRecord, read_run
from tests.edgezo.report.chromium import find_chromium, look_at, printed_pages
from tests.edgezo.written_runs import written_run


def texts_of(run: RunRecord) -> RunTexts:
    """Texts with what a page must not take for its own."""
    long = "word " * 80 + "w" * 200 + " <script>alert(1)</script> & 'quotes'"
    worst = {
        split: {when: [RowText(row, long, " good") for row in found.worst]
                for when, found in own.items()}
        for split, own in run.rows.sets.items()
    }  # fmt: skip
    return RunTexts(worst, [Sample("the prompt", "the right one", "before", "after")])


def page_of(folder: Path, *names: str) -> str:
    runs = [read_run(written_run(folder / name)) for name in names]
    return html_page(runs, [texts_of(run) for run in runs])


def test_one_run(tmp_path: Path) -> None:
    page = page_of(tmp_path, "one")
    tree = ElementTree.fromstring(page.removeprefix("<!doctype html>\n"))
    headings = [found.text for found in tree.iter("h2")]
    assert headings == [
        "Warnings", "Learning", "Right and wrong", "Memory", "Rows with the largest losses",
        "Texts before and after", "Settings", "Repeat, check and use it", "Receipt and digests",
    ]  # fmt: skip
    told = "".join(tree.itertext())
    for text in (
        "some/model-1M on reviews", "52.0 % → 84.0 %", "+32.0 points on 50 validation rows",
        "73.9 to 85.0 % (95 %), 200 rows", "301 MB", "of 500 MB; 290 MB were predicted",
        "1: step 10", "memory is short: 1 of 2 workers", "3 rows are cut: <b>& more</b>",
        "steps about 1.25 times as fast", "kept: 0.4", "26 of 50 right", "42 of 50 right",
        "edgezo replay /nowhere/model.bundle",
    ):  # fmt: skip
        assert text in told, text
    assert len(tree.findall(".//ol[@class='rows']/li")) == 21


def test_it_needs_no_network(tmp_path: Path) -> None:
    page = page_of(tmp_path, "one", "two")
    assert not re.findall(r"(?:src|href|url|@import)\s*[=(]", page)
    assert set(re.findall(r"https?://[^\"' )]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "<script" not in page
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    tree = ElementTree.fromstring(page_of(tmp_path, "a", "b", "c").partition("\n")[2])
    assert [found.text for found in tree.iter("h1")] == ["3 runs compared"]
    lines = tree.findall(".//table[@class='compare']/tr")
    assert [cell.text for cell in lines[1]] == [
        "a", "some/model-1M", "reviews", "auto", "52.0 %", "84.0 %", "80.0 %", "20s", "301 MB",
        "done",
    ]  # fmt: skip
    assert len(lines) == 4
    assert len(tree.findall(".//section")) == 3


def test_a_run_that_stored_little(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run", metrics=[], settings={}, ended={}, rows={}))
    page = html_page([run], [RunTexts(note="the run keeps no rows")])
    told = "".join(ElementTree.fromstring(page.partition("\n")[2]).itertext())
    assert "nothing was recorded" in told
    assert "the run keeps no rows" in told
    assert "unfinished" in told


LONG = "SmolLM2-135M-Instruct-auto-0.1.0-fd7620b1-20261130-054054"
"""A name as runs get where nobody gives one."""


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_how_it_looks(tmp_path: Path, dark: bool) -> None:
    one, several = tmp_path / "one.html", tmp_path / "several.html"
    one.write_text(page_of(tmp_path, "one"), encoding="utf-8")
    several.write_text(page_of(tmp_path, "two", LONG), encoding="utf-8")
    found = look_at([one, several], [360, 1280], dark=dark)
    for own in found:
        problems = {name: own[name] for name in ("wide", "cut", "faint", "small")}
        assert not any(problems.values()), (own["width"], problems)
        assert own["scroll"] == own["width"]
        assert not (own["hidden"] and own["width"] == 1280)  # as the columns of scores were
        assert (max(own["background"][:3]) < 60) == dark
    assert [own["width"] for own in found] == [360, 1280, 360, 1280]
    assert [own["charts"] for own in found] == [10, 10, 25, 25]
    assert [own["rows"] for own in found] == [21, 21, 42, 42]


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")
def test_how_it_prints(tmp_path: Path) -> None:
    """Few sheets of one size: it took twice as many, with charts on sheets of their own."""
    one, several = tmp_path / "one.html", tmp_path / "several.html"
    one.write_text(page_of(tmp_path, "one"), encoding="utf-8")
    several.write_text(page_of(tmp_path, "two", LONG), encoding="utf-8")
    alone, compared = printed_pages(one), printed_pages(several)
    assert len(set(alone + compared)) == 1
    assert alone[0][1] > alone[0][0]
    assert 3 <= len(alone) <= 7
    assert len(compared) <= 2 * len(alone) + 2  # each run begins a sheet, behind the comparison
