"""Questions: prompts as they are learned, and the answers that are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.data.example_set import Example
from edgezo_runtime.data.questions import load_questions, make_questions, prompt_of
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.errors import DataError
from tests.runtime.tiny_tokenizer import CHAT, byte_tokenizer, write_rows

TOKENIZER = byte_tokenizer()
CHATTY = byte_tokenizer(chat_template=CHAT)


def reader(template: str | None = None, **given: Any) -> RowReader:
    settings = {"tokenizer": TOKENIZER, "max_seq": 64, **given}
    return RowReader(template=template, **settings)


def test_a_template_asks_and_all_texts_of_the_answer_are_right() -> None:
    row = {"q": "the question", "answers": ["great", "very good"]}
    (question,) = make_questions(reader("{q} It was"), [row]).questions
    assert TOKENIZER.decode(question.prompt) == "the question It was"
    assert question.answers == ("great", "very good")
    assert question.fields == row


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"prompt": "the film", "completion": " great"}, "the film", " great"),
        ({"instruction": "the film", "output": "great"}, "the film\n", "great"),
    ],
)
def test_rows_without_a_template(row: dict[str, str], prompt: str, answer: str) -> None:
    (question,) = make_questions(reader(), [row]).questions
    assert (TOKENIZER.decode(question.prompt), question.answers) == (prompt, (answer,))


def test_of_a_conversation_the_last_answer_is_wanted() -> None:
    turns = [("user", "question"), ("assistant", "No"), ("user", "story"), ("assistant", "Yes")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (question,) = make_questions(reader(tokenizer=CHATTY), [row]).questions
    text = CHATTY.decode(question.prompt, skip_special=False)
    assert text == "<user>question</s>\n<assistant>No</s>\n<user>story</s>\n<assistant>"
    assert question.answers == ("Yes",)


def test_files_and_rows_in_memory_give_the_same_questions(tmp_path: Path) -> None:
    rows = [{"q": "film", "answer": "great"}, {"q": "music", "answer": "bad"}]
    path = write_rows(tmp_path / "train.jsonl", rows)
    taken = make_questions(reader("{q} It was"), iter(rows))
    read = make_questions(reader("{q} It was"), tmp_path)
    loaded = load_questions(path, TOKENIZER, template="{q} It was", max_seq=64)
    assert taken.questions == read.questions == loaded.questions
    assert taken.prompts == [question.prompt for question in taken.questions]
    assert len(taken) == len(taken.examples) == 2
    assert taken.tokenizer is TOKENIZER
    short = load_questions(path, TOKENIZER, template="{q} It was", max_seq=64, limit=1)
    assert short.questions == taken.questions[:1]


def test_a_prompt_is_what_comes_before_the_last_scored_run() -> None:
    tokens = np.arange(10, 20, dtype=np.int32)
    one = Example(0, 1, tokens, np.array([6, 7, 8], np.int32))
    assert prompt_of(one) == (10, 11, 12, 13, 14, 15)
    two = Example(0, 1, tokens, np.array([2, 3, 6, 7], np.int32))
    assert prompt_of(two) == (10, 11, 12, 13, 14, 15)


def test_prompts_are_truncated_as_they_are_learned() -> None:
    row = {"q": "story " * 40, "answer": "great"}
    found = make_questions(reader("{q} It was", max_seq=10), [row])
    (question,) = found.questions
    assert question.prompt == prompt_of(found.examples.examples[0])
    assert len(question.prompt) < 10
    assert TOKENIZER.decode(question.prompt).endswith("story It was")
    assert found.examples.report.truncation.rows == 1


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        (None, {"text": "the film"}, "row 1: a row with 'text' has no answer to compare with"),
        ("{q}", {"q": "film"}, "row 1: the template has no answer to learn"),
        ("{q}", {"q": "film", "answers": ["good", 3]}, "row 1: field 'answers' is the number 3"),
        (None, {"prompt": "film", "completion": ""}, "row 1: field 'completion' is empty"),
    ],
)
def test_rows_without_an_answer_are_named(
    template: str | None, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_questions(reader(template), [row])
