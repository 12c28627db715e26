"""Findings about rows, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgezo.data_check.findings import find_all, task_of
from edgezo.data_check.split_summary import MOST_VALUES, SplitSummary, content_digest, summarize
from edgezo_runtime.data.files.row import Row


def split(name: str, rows: list[dict[str, Any]]) -> SplitSummary:
    return summarize(name, [Row(fields, at, f"line {at}") for at, fields in enumerate(rows, 1)])


def names(*splits: SplitSummary) -> dict[str, str]:
    return {own.name: own.text for own in find_all({part.name: part for part in splits})}


def rows(count: int, label: Any = None) -> list[dict[str, Any]]:
    return [
        {"sentence": f"row {at}", "label": at % 2 if label is None else label}
        for at in range(count)
    ]


def test_classes() -> None:
    found = names(split("train", rows(40)), split("valid", rows(10, label=3)))
    assert found["rows"] == "40 train, 10 valid rows"
    assert found["task"] == "classification: the field 'label' has 2 values"
    assert found["classes"] == "classes: 0 50.0 %, 1 50.0 %"
    assert found["unknown-labels"] == "valid rows have labels that the train rows lack: 3"
    assert "uneven" not in found


def test_uneven_and_rare_classes() -> None:
    found = names(
        split("train", [*rows(45, 0), *[{"sentence": f"b{n}", "label": 1} for n in (1, 2)]])
    )
    assert found["uneven"].startswith("uneven classes: who always says 0 is right in 95.7 %")
    assert found["rare"] == "classes of fewer than 8 rows: 1"
    assert "held-out" in found


def test_rows_that_come_twice() -> None:
    train = split("train", [*rows(20), {"sentence": " row 3 ", "label": 0}, rows(5)[4]])
    test = split("test", rows(3))
    found = names(train, test)
    assert found["repeated"] == (
        "2 train rows say what an earlier one says; 1 of them has another label"
    )
    assert found["shared"] == "3 rows are in train and in test: scores on test flatter"
    assert (train.repeated, train.contradicting, train.shared_with(test)) == (2, 1, 3)


def test_texts_to_write() -> None:
    train = split("train", [{"instruction": "a", "output": "b", "input": ""}] * 2)
    assert task_of(train) == "writing"
    found = names(train)
    assert found["task"] == "writing: 2 rows of kind 'instruction'"
    assert found["empty"] == "the field 'input' is empty in 2 rows"
    mixed = split("train", [{"text": "a"}, {"prompt": "b", "completion": "c"}])
    assert "kinds" in names(mixed)


def test_rows_that_need_a_template() -> None:
    train = split("train", [{"review": f"text {at}", "mood": "ab"[at % 2]} for at in range(30)])
    found = names(train)
    assert found["task"].startswith("unclear: the rows have 'review', 'mood'")
    assert found["label-field"] == "the field 'mood' has 2 values; name it 'label' to classify"


def test_a_field_that_some_rows_lack() -> None:
    found = names(split("train", [{"a": 1, "b": "x"}, {"a": None, "b": "y"}]))
    assert found["missing"] == "1 row has no 'a'"


@pytest.mark.parametrize(("count", "task"), [(3, "classification"), (100, "unclear")])
def test_many_labels_are_no_classes(count: int, task: str) -> None:
    train = split("train", [{"s": "x", "label": at % count} for at in range(120)])
    assert task_of(train) == task


def test_fields_of_many_values_are_not_counted() -> None:
    own = split("train", [{"s": str(at)} for at in range(MOST_VALUES + 1)]).fields["s"]
    assert (own.values, own.rows, own.texts) == (None, MOST_VALUES + 1, MOST_VALUES + 1)


def test_the_label_is_no_part_of_a_content() -> None:
    one = content_digest(Row({"a": " x ", "label": 1}, 1, ""))
    assert one == content_digest(Row({"label": 2, "a": "x", "b": None}, 9, ""))
    assert one != content_digest(Row({"a": "y"}, 1, ""))


def test_a_row_that_comes_again_in_another_file_at_the_same_line() -> None:
    files = [Row({"sentence": "the same", "label": label}, 1, "line 1") for label in (0, 0, 1)]
    found = summarize("train", files)
    assert (found.repeated, found.contradicting) == (2, 1)
