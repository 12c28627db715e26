"""Questions: prompts with right answers, for objectives that score generated text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgezo_runtime.data.chat.messages import check_messages
from edgezo_runtime.data.completions import answers_of
from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.data.records import Row, read_rows
from edgezo_runtime.data.row_content import recognise
from edgezo_runtime.data.row_reader import Fields, RowReader, numbered
from edgezo_runtime.data.template import text_field
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with its right answers.

    Attributes:
        prompt: tokens; training reads the same tokens before the answer.
        answers: the right answers.
        fields: fields of the row.
    """

    prompt: tuple[int, ...]
    answers: tuple[str, ...]
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class QuestionSet:
    """The questions of one file.

    Attributes:
        examples: the rows as training examples, in the order of the questions.
        questions: the questions, in the order of the file.
        tokenizer: the tokenizer of the prompts.
    """

    examples: ExampleSet
    questions: tuple[Question, ...]
    tokenizer: TextTokenizer

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.questions)

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """Return the tokens of each prompt."""
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
    """Read a data file as questions, as `make_questions` does.

    Args:
        path: a file or folder, as in `RowReader.read`.
        tokenizer: the bundle's tokenizer.
        template: prompt template, as in `RowReader`.
        max_seq: longest input in tokens.
        split: the file of a folder to read.
        limit: number of first rows to use; None uses all.
    Raises:
        UsageError: template, `max_seq`, `split` or `limit` are wrong.
        DataError: the file or a row is wrong, or a row has no answer.
        BundleError: the rows need a chat template and the bundle has no usable one.
    """
    return make_questions(
        RowReader(tokenizer, template, (), max_seq), path, split=split, limit=limit
    )


def make_questions(
    reader: RowReader,
    source: str | Path | Iterable[Fields],
    *,
    split: str | None = None,
    limit: int | None = None,
) -> QuestionSet:
    """Make questions of rows.

    With a template, all texts of the row's answer field are right answers. Without a template, the
    answer is `completion`, `output`, or the last message.

    Args:
        reader: reader of rows, without label words.
        source: a file or folder, as in `RowReader.read`, or rows in memory.
        split: the file of a folder to read.
        limit: number of first rows of a file to use; None uses all.
    Raises:
        UsageError: `split` or `limit` are wrong.
        DataError: the file or a row is wrong, or a row has no answer.
        BundleError: the rows need a chat template and the bundle has no usable one.
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
    """Return the tokens before the last run of scored tokens."""
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
            f"{row.where}: a row with 'text' has no answer to compare with; give `template`, or "
            f"rows with prompt and completion"
        )
    field = "completion" if kind == "prompt" else "output"
    return (text_field(row.fields, field, row.where),)
