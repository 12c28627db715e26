"""Rows as questions: what a model is asked, and the answers that are right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgezo_runtime.data.chat.chat_template import check_messages
from edgezo_runtime.data.completions import answers_of
from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.data.records import Row, read_rows, recognise
from edgezo_runtime.data.row_reader import Fields, RowReader, numbered
from edgezo_runtime.data.template import text_field
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError


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
        tokenizer: what made them.
    """

    examples: ExampleSet
    questions: tuple[Question, ...]
    tokenizer: TextTokenizer

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
    """Read a data file as questions; see `ask`.

    Args:
        path: as for `load_examples`, and so on.
    Raises:
        UsageError: as `load_examples`.
        DataError: likewise, or the rows have no answers.
        BundleError: likewise.
    """
    return ask(RowReader(tokenizer, template, (), max_seq), path, split=split, limit=limit)


def ask(
    reader: RowReader,
    source: str | Path | Iterable[Fields],
    *,
    split: str | None = None,
    limit: int | None = None,
) -> QuestionSet:
    """Read rows as questions.

    A template makes the prompt, and all texts of the row's answer field are right; without one the
    answer is `completion`, `output`, or the last message.

    Args:
        reader: of rows, without label words.
        source: a file or a folder of them, as for `RowReader.read`, or rows in memory.
        split: which file of a folder.
        limit: use the first rows of a file only; None uses all.
    Raises:
        UsageError: as `RowReader.read`.
        DataError: likewise, or the rows have no answers.
        BundleError: likewise.
    """
    rows: Iterable[Row]
    if isinstance(source, str | Path):
        examples = reader.read(source, split=split, limit=limit)
        rows = read_rows(examples.path, limit)
    else:
        kept = list(source)
        examples = reader.take(kept)
        rows = numbered(kept)
    templated = reader.template is not None
    questions = [
        Question(prompt_of(example), _answers(row, templated), row.fields)
        for example, row in zip(examples, rows, strict=True)
    ]
    return QuestionSet(examples, tuple(questions), reader.tokenizer)


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
