"""Multiple choice: tokens of each choice, the right one, and which is predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.data.choices import ChoiceSet, load_choices
from edgezo_runtime.errors import DataError, UsageError
from tests.runtime.tiny_tokenizer import byte_tokenizer, masked_tokenizer, write_rows

TOKENIZER = byte_tokenizer()
ROWS = [
    {"q": "the film", "options": ["great", "very bad", "so good"], "answer": 1},
    {"q": "music", "options": ["Yes", "No"], "label": "No"},
]


def load(path: Path, rows: list[dict[str, Any]], **given: Any) -> ChoiceSet:
    file = write_rows(path / "f.jsonl", rows)
    settings = {"template": "{q} It was", "field": "options", "max_seq": 64, **given}
    return load_choices(file, TOKENIZER, **settings)


def test_every_choice_is_a_completion(tmp_path: Path) -> None:
    found = load(tmp_path, ROWS)
    texts = [TOKENIZER.decode(example.tokens.tolist()) for example in found.examples]
    assert texts == [
        "the film It was great",
        "the film It was very bad",
        "the film It was so good",
        "music It was Yes",
        "music It was No",
    ]
    scored = [TOKENIZER.decode(e.tokens[e.places].tolist()) for e in found.examples]
    assert scored == [" great", " very bad", " so good", " Yes", " No"]
    assert found.rows.tolist() == [0, 0, 0, 1, 1]
    assert found.labels.tolist() == [1, 1]
    assert [example.line for example in found.examples] == [1, 1, 1, 2, 2]
    assert found.examples.kind == "completion"
    assert found.examples.report.longest == 5  # the last token is predicted, not read


def test_a_space_is_added_only_where_there_is_none(tmp_path: Path) -> None:
    rows = [{"q": "the film", "options": [" great", "bad"], "label": 0}]
    spaced = load(tmp_path, rows)
    ended = load(tmp_path, [{**rows[0], "options": ["great", "bad"]}], template="{q} It was ")
    for found, prompt in ((spaced, "the film It was"), (ended, "the film It was ")):
        texts = [TOKENIZER.decode(example.tokens.tolist()) for example in found.examples]
        assert texts == [f"{prompt} great".replace("  ", " "), f"{prompt} bad".replace("  ", " ")]


def test_the_likeliest_choice_is_predicted_and_the_first_of_equals(tmp_path: Path) -> None:
    found = load(tmp_path, ROWS)
    assert found.predictions(np.array([3.0, 2.0, 1.0, 0.5, 0.5])).tolist() == [2, 0]
    assert found.predictions(np.array([1.0, 2.0, 1.0, 0.5, 0.25])).tolist() == [0, 1]


def test_long_prompts_leave_room_for_the_longest_choice(tmp_path: Path) -> None:
    rows = [{"q": "story " * 30, "options": ["great", "a very bad story"], "label": 0}]
    found = load(tmp_path, rows, max_seq=12)
    assert [example.tokens.size for example in found.examples] == [10, 13]
    assert found.examples.report.longest == 12
    assert found.examples.report.truncation.rows == 1
    assert [warning.name for warning in found.examples.warnings] == ["truncated"]
    with pytest.raises(DataError, match="line 1: a choice of 'options' is longer than 3 tokens"):
        load(tmp_path, rows, max_seq=3)


def test_the_first_rows_of_a_split(tmp_path: Path) -> None:
    write_rows(tmp_path / "valid.jsonl", ROWS)
    settings: dict[str, Any] = {"template": "{q} It was", "field": "options", "max_seq": 64}
    found = load_choices(tmp_path, TOKENIZER, split="valid", limit=1, **settings)
    assert found.labels.tolist() == [1]
    assert len(found.examples) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": None}, "field 'options' is null, expected an array of 2 to 64 texts"),
        ({"options": ["a"]}, "is an array of 1, expected"),
        ({"options": ["a"] * 65}, "is an array of 65, expected"),
        ({"options": ["a", 3]}, "a choice of 'options' is the number 3 or empty"),
        ({"options": ["a", " "]}, "a choice of 'options' is a string or empty"),
        ({"options": ["a", "\ud800"]}, "half of a surrogate pair"),
        ({"answer": 3}, "field 'answer' names none of the 3 choices"),
        ({"answer": True}, "field 'answer' names none"),
        ({"answer": "awful"}, "field 'answer' names none"),
        ({"label": "awful"}, "field 'label' names none"),
        ({"q": 3}, "field 'q' is the number 3"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"line 1: .*{message}"):
        load(tmp_path, [{**ROWS[0], **row}])


def test_missing_fields_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: no field 'options'; the row has 'q', 'answer'"):
        load(tmp_path, [{"q": "a", "answer": 0}])
    with pytest.raises(DataError, match="line 1: no right choice; add a field 'label' or 'answer'"):
        load(tmp_path, [{"q": "a", "options": ["a", "b"]}])


def test_masked_models_have_no_choices(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`choices`: a masked-lm bundle scores label words only"):
        load_choices(
            tmp_path, masked_tokenizer(), template="{q} [MASK]", field="options", max_seq=9
        )


def test_long_rows_may_be_left_out(tmp_path: Path) -> None:
    rows = [{"q": "story " * 30, "options": ["Yes", "No"], "label": 0}, *ROWS]
    found = load(tmp_path, rows, max_seq=12, long="drop")
    assert found.labels.tolist() == [1, 1]
    assert found.rows.tolist() == [0, 0, 0, 1, 1]
    assert [warning.name for warning in found.examples.warnings] == ["dropped"]
    with pytest.raises(DataError, match="all 1 rows are longer than 12 tokens"):
        load(tmp_path, rows[:1], max_seq=12, long="drop")
