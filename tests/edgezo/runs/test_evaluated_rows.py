"""Results of single rows, worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgezo.runs.evaluated_rows import (
    MOST_TOKENS,
    WORST_ROWS,
    EvaluatedRows,
    RowResults,
    read_rows,
)
from edgezo_runtime.data.example_set import Example, ExampleSet, LoadReport, TruncationReport
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.evaluation.evaluate import Evaluation


def examples(*rows: tuple[list[int], list[int], int], words: tuple[str, ...] = ()) -> ExampleSet:
    """Examples of tokens, scored places and labels."""
    made = tuple(
        Example(at, at + 1, np.array(tokens, np.int32), np.array(places, np.int32), label)
        for at, (tokens, places, label) in enumerate(rows)
    )
    report = LoadReport(len(made), 0, 0, TruncationReport())
    kind = "labels" if words else "completion"
    return ExampleSet(kind, made, Path("x"), "", 512, 0, report, words)


def evaluation(losses: list[float], predictions: list[int] | None = None) -> Evaluation:
    chosen = np.array(predictions or [], np.int64)
    values = np.array(losses)
    return Evaluation(len(losses), float(values.mean()), None, None, None, chosen, values)


def test_classes() -> None:
    rows = examples(
        ([5, 6], [1], 0), ([7], [0], 1), ([8, 9], [1], 0), ([4], [0], 1), words=("a", "b")
    )
    found = RowResults.of(3, rows, evaluation([0.1, 2.0, 3.0, 0.2], [0, 0, 1, 1]))
    assert found.confusion == ((1, 1), (1, 1))
    assert [(row.line, row.label, row.predicted) for row in found.worst[:2]] == [
        (3, 0, 1),
        (2, 1, 0),
    ]
    assert found.worst[0].tokens == (8, 9)
    assert found.worst[0].answer == 2
    assert found.samples == ()
    assert (found.step, found.rows, found.loss) == (3, 4, pytest.approx(1.325))


def test_texts_keep_the_place_of_their_answer() -> None:
    rows = examples(*(([1, 2, 3, 4], [2, 3], -1) for _ in range(12)))
    found = RowResults.of(0, rows, evaluation([float(value) for value in range(12)]))
    assert found.confusion == ()
    assert [row.line for row in found.worst] == list(range(12, 12 - WORST_ROWS, -1))
    assert (found.worst[0].answer, found.worst[0].predicted) == (2, -1)
    assert [row.line for row in found.samples] == [1, 2, 3]


@pytest.mark.parametrize(("first", "begin"), [(10, 0), (600, 520), (999, 840)])
def test_a_long_row_shows_where_its_answer_begins(first: int, begin: int) -> None:
    tokens = list(range(1000))
    rows = examples((tokens, list(range(first, 1000)), -1))
    row = RowResults.of(0, rows, evaluation([1.0])).worst[0]
    assert row.tokens == tuple(range(begin, begin + MOST_TOKENS))
    assert (row.cut, row.tokens[row.answer]) == (begin, first)


def test_written_and_read_again(tmp_path: Path) -> None:
    rows = examples(([5, 6], [1], 0), ([7], [0], 1), words=("a", "b"))
    found = RowResults.of(3, rows, evaluation([0.1, 2.0], [0, 0]))
    kept = EvaluatedRows().plus("valid", "before", found).plus("test", "after", found)
    kept.write(tmp_path / "rows.json")
    assert read_rows(tmp_path / "rows.json") == kept
    assert kept.until(2).sets == {}
    assert read_rows(tmp_path / "none.json").sets == {}


@pytest.mark.parametrize("text", ["[]", "{", '{"version": 2}', '{"version": 1, "sets": {"a": 1}}'])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(RunFileError, match=r"rows\.json.*remove it"):
        read_rows(path)


def test_more_classes_than_a_picture_shows() -> None:
    words = tuple(f"w{index}" for index in range(65))
    found = RowResults.of(0, examples(([1], [0], 64), words=words), evaluation([1.0], [3]))
    assert found.confusion == ()
    assert json.dumps(found.worst[0].predicted) == "3"
