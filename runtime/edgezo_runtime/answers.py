"""Rows as questions: what a model is asked, and the answers that are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgezo_runtime.chat import check_messages
from edgezo_runtime.completions import answers_of
from edgezo_runtime.errors import DataError
from edgezo_runtime.example_set import Example, ExampleSet
from edgezo_runtime.examples import load_examples
from edgezo_runtime.records import Row, read_rows, recognise
from edgezo_runtime.template import text_field
from edgezo_runtime.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        prompt: tokens, the same that are read before the answer when it is learned.
        answers: right ones.
        fields: the row.
    """

    prompt: tuple[int, ...]
    answers: tuple[str, ...]
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class QuestionSet:
    """The questions of one file.

    Attributes:
        examples: the rows as they are learned, in the order of the questions.
        questions: in the order of the file.
    """

    examples: ExampleSet
    questions: tuple[Question, ...]

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.questions)

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """Tokens of each prompt."""
        return [question.prompt for question in self.questions]


def load_questions(
    path: str | Path,
    tokenizer: TextTokenizer,
    *,
    template: str | None = None,
    max_seq: int,
    split: str | None = None,
    limit: int | None = None,
) -> QuestionSet:
    """Read a data file as questions.

    A template makes the prompt, and all texts of the row's answer field are right; without one the
    answer is `completion`, `output`, or the last message.

    Args:
        path: as for `load_examples`, and so on.
    Raises:
        UsageError: as `load_examples`.
        DataError: likewise, or the rows have no answers.
        BundleError: likewise.
    """
    examples = load_examples(
        path, tokenizer, template=template, max_seq=max_seq, split=split, limit=limit
    )
    rows = read_rows(examples.path, limit)
    return questions_of(examples, rows_with_answers(rows, template is not None))


def rows_with_answers(rows: Any, templated: bool) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """Fields and right answers of every row.

    Raises:
        DataError: a row has none.
    """
    return [(row.fields, _answers(row, templated)) for row in rows]


def questions_of(
    examples: ExampleSet, rows: Sequence[tuple[dict[str, Any], tuple[str, ...]]]
) -> QuestionSet:
    """Put tokenized rows and their answers together."""
    questions = [
        Question(prompt_of(example), answers, fields)
        for example, (fields, answers) in zip(examples, rows, strict=True)
    ]
    return QuestionSet(examples, tuple(questions))


def prompt_of(example: Example) -> tuple[int, ...]:
    """What is read before the last run of scored tokens."""
    breaks = np.flatnonzero(np.diff(example.places) > 1)
    start = example.places[breaks[-1] + 1 if breaks.size else 0]
    return tuple(int(token) for token in example.tokens[:start])


def _answers(row: Row, templated: bool) -> tuple[str, ...]:
    if templated:
        return answers_of(row.fields, row.where)
    kind = recognise(row)
    if kind == "messages":
        messages = check_messages(row.fields.get("messages"), row.where)
        turns = [message for message in messages if message["role"] == "assistant"]
        return (str(turns[-1]["content"]),)
    if kind == "text":
        raise DataError(
            f"{row.where}: a row of 'text' has no answer that could be compared; give --template, "
            f"or rows with prompt and completion"
        )
    field = "completion" if kind == "prompt" else "output"
    return (text_field(row.fields, field, row.where),)
