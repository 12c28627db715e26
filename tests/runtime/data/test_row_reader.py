"""The reader of rows: files and memory alike, digests, and rows without a class."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.data.example_set import TruncationReport
from edgezo_runtime.data.row_reader import (
    RowReader,
    numbered,
    truncation_warning,
)
from edgezo_runtime.errors import DataError, UsageError
from tests.runtime.tiny_tokenizer import byte_tokenizer, write_rows

TOKENIZER = byte_tokenizer()
LABELS = (" terrible", " great")
ROWS = [{"s": "the film", "label": 1}, {"s": "bad", "label": "terrible"}]


def reader(**given: Any) -> RowReader:
    settings = {"template": "{s} It was", "labels": LABELS, "max_seq": 64, **given}
    return RowReader(TOKENIZER, **settings)


def test_rows_of_a_file_and_of_memory_become_the_same_examples(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.jsonl", ROWS)
    read, taken = reader().read(path), reader().take(ROWS)
    assert read.tokens_sha256() == taken.tokens_sha256()
    assert [e.line for e in read] == [e.line for e in taken] == [1, 2]
    assert read.report == taken.report
    assert (read.path, taken.path) == (path, Path("rows"))
    assert read.label_words == taken.label_words == LABELS


def test_the_digest_of_rows_is_that_of_their_json() -> None:
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in ROWS)
    assert reader().take(ROWS).sha256 == hashlib.sha256(lines.encode()).hexdigest()
    swapped = [dict(reversed(row.items())) for row in ROWS]
    assert reader().take(swapped).sha256 == reader().take(ROWS).sha256


def test_a_set_is_read_like_another() -> None:
    """Label words take the tokens that they have in the other set, whatever these rows say."""
    apart = {"template": "{s}", "labels": ("terrible", "great")}
    odd = reader(**apart).take([{"s": "bad ", "label": 0}, {"s": "so", "label": 1}])
    assert [w.name for w in odd.warnings] == ["label-boundary"]
    row = {"s": "story", "label": 0}
    alike = reader(**apart).take([row], like=odd)
    assert alike.label_tokens == odd.label_tokens
    assert alike.tokens_sha256() != odd.tokens_sha256()


def test_rows_to_classify_need_no_class() -> None:
    rows = [{"s": "the film"}, {"s": "bad"}]
    found = reader().take(rows, with_class=False)
    assert [e.tokens.tolist() for e in found] == [e.tokens.tolist() for e in reader().take(ROWS)]
    with pytest.raises(DataError, match="row 1: no field 'label'"):
        reader().take(rows)


def test_a_text_fills_the_only_field() -> None:
    assert reader().text_row("good") == {"s": "good"}
    assert reader(template="{s} and {s} It was").text_row("good") == {"s": "good"}
    with pytest.raises(UsageError, match="the template has 2; give a row"):
        reader(template="{a} and {b} It was").text_row("good")
    with pytest.raises(UsageError, match="the template has 0"):
        reader(template=None, labels=()).text_row("good")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_seq": 0}, "max_seq must be 1 token or more, not 0"),
        ({"template": None}, "label words need a prompt; give `template` .* with `labels`"),
        ({"template": "{s"}, "'{' without '}'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        reader(**given)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows; expected at least one"),
        ([{"s": "a", "label": 0}, ["s"]], "row 2: found an array, expected a dict"),
        ([{"s": "a", "label": 0, "x": {1}}], "row 1: not JSON"),
        ([{"s": "a", "label": 0, "x": float("nan")}], "row 1: not JSON"),
        ([{"s": 3, "label": 0}], "row 1: field 's' is the number 3"),
    ],
)
def test_wrong_rows_in_memory_are_named(rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        reader().take(rows)


def test_rows_are_copied() -> None:
    row = {"s": "a"}
    (made,) = numbered([row])
    row["s"] = "b"
    assert (made.fields, made.line, made.where) == ({"s": "a"}, 1, "row 1")


def test_truncation_is_told_with_counts() -> None:
    assert list(truncation_warning(TruncationReport(), 5, 8)) == []
    report = TruncationReport(3, 30, 4, 2, 1).plus_dropped()
    cut, dropped = truncation_warning(report, 5, 8)
    assert (cut.name, cut.count) == ("truncated", 3)
    assert cut.message == (
        "3 of 6 rows are longer than 8 tokens: 2 lost 30 tokens of the prompt, 1 lost 4 tokens of "
        "the answer's end; raise `max_seq`, or set `long` to drop"
    )
    assert (dropped.name, dropped.count) == ("dropped", 1)
    assert dropped.message == (
        "1 of 6 rows are longer than 8 tokens and are left out; raise `max_seq`"
    )


def test_rows_to_classify_are_never_left_out() -> None:
    made = reader(template="{s} It was", labels=(" terrible", " great"), max_seq=8, long="drop")
    rows = [{"s": "film", "label": 0}, {"s": "story " * 20, "label": 1}]
    assert [example.line for example in made.take(rows)] == [1]
    assert len(made.take(rows, with_class=False)) == 2
