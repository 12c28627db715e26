"""Texts of rows, by the tokenizer of a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo.report.row_texts import open_bundle, read_texts
from edgezo.runs.run_record import read_run
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.errors import EdgezoError
from tests.edgezo.conftest import Tiny
from tests.edgezo.written_runs import kept_row, rows_file, written_run


def test_rows_in_words(tmp_path: Path, tiny: Tiny) -> None:
    tokenizer = open_tokenizer(Bundle.open(tiny.int8))
    tokens = tokenizer.encode("w20 w21 w22", add_special=False)
    rows = rows_file(0)
    whole = {**kept_row(1, 3.0), "tokens": tokens, "answer": 2, "label": -1, "predicted": -1}
    beyond = {**kept_row(2, 2.0), "tokens": [*tokens, 10**9], "answer": 4, "cut": 5}
    rows["sets"]["valid"]["after"]["worst"] = [whole, beyond]
    run = written_run(tmp_path / "run", settings={"bundle": str(tiny.int8), "label": ["a", "b"]},
                      rows=rows)  # fmt: skip
    found = read_texts(read_run(run)).worst["valid"]["after"]
    assert [(own.prompt, own.answer.strip()) for own in found] == [
        ("w20 w21", "w22"),
        ("… w20 w21 w22", "a"),
    ]


def test_without_its_bundle_a_run_has_no_texts(tmp_path: Path, tiny: Tiny) -> None:
    run = read_run(written_run(tmp_path / "run"))
    assert "give --bundle DIR" in read_texts(run).note
    assert read_texts(run, tiny.int8).note == ""
    with pytest.raises(EdgezoError, match="does not say where its bundle is"):
        open_bundle(read_run(written_run(tmp_path / "b", settings={})))
    bare = read_run(written_run(tmp_path / "c", rows={}))
    assert "keeps no rows" in read_texts(bare).note
