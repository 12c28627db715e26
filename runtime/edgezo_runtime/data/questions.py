"""Questions: prompts with right answers, for objectives that score generated text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from edgezo_runtime.data.chat.messages import assistant_turns, content_of
from edgezo_runtime.data.completions import answers_of
from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.folders import Paths, paths_of, resolve
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.reading import LongRows
from edgezo_runtime.data.row_content import Conversation, Pair, Text, read_content, recognise
from edgezo_runtime.data.row_reader import Fields, RowReader, numbered
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
    path: Paths | DataFiles,
    tokenizer: TextTokenizer,
    *,
    template: str | None = None,
    max_seq: int,
    split: str | None = None,
    limit: int | None = None,
    long: LongRows = "truncate",
) -> QuestionSet:
    """Read a data file as questions, as `make_questions` does.

    Args:
        path: a file or folder, as in `RowReader.read`.
        tokenizer: the bundle's tokenizer.
        template: prompt template, as in `RowReader`.
        max_seq: longest input in tokens.
        split: the file of a folder to read.
        limit: number of first rows to use; None uses all.
        long: what happens to longer rows, as in `RowReader`.
    Raises:
        UsageError: template, `max_seq`, `split` or `limit` are wrong.
        DataError: the file or a row is wrong, or a row has no answer.
        BundleError: the rows need a chat template and the bundle has no usable one.
    """
    reader = RowReader(tokenizer, template, (), max_seq, long=long)
    return make_questions(reader, path, split=split, limit=limit)


def make_questions(
    reader: RowReader,
    source: Paths | DataFiles | Iterable[Fields],
    *,
    split: str | None = None,
    limit: int | None = None,
) -> QuestionSet:
    """Make questions of rows.

    With a template, all texts of the row's answer field are right answers. Without a template, the
    answer is `completion`, `output`, or the assistant's last message, whatever its weight; only
    this turn is scored in the examples.

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
    paths = paths_of(source)
    if paths is not None:
        files = resolve(paths, split)
        examples = reader.read(files, limit=limit, questions=True)
        rows = files.rows(limit)
    else:
        kept = list(cast(Iterable[Fields], source))
        examples = reader.take(kept, questions=True)
        rows = numbered(kept)
    templated = reader.template is not None
    questions = [
        Question(prompt_of(example), _answers(row, templated, reader.tokenizer), row.fields)
        for example, row in _rows_of(examples, rows)
    ]
    return QuestionSet(examples, tuple(questions), reader.tokenizer)


def _rows_of(examples: ExampleSet, rows: Iterable[Row]) -> Iterator[tuple[Example, Row]]:
    """Yield every example with its row; rows that were left out have none."""
    following = iter(rows)
    for example in examples:
        yield example, next(row for row in following if row.line == example.line)


def prompt_of(example: Example) -> tuple[int, ...]:
    """Return the tokens before the last run of scored tokens."""
    breaks = np.flatnonzero(np.diff(example.places) > 1)
    start = example.places[breaks[-1] + 1 if breaks.size else 0]
    return tuple(int(token) for token in example.tokens[:start])


def _answers(row: Row, templated: bool, tokenizer: TextTokenizer) -> tuple[str, ...]:
    if templated:
        return answers_of(row.fields, row.where)
    content = read_content(row, recognise(row), chat=tokenizer.chat_template is not None)
    match content:
        case Conversation(messages, _):
            answer = content_of(messages[assistant_turns(messages)[-1]])
            if not answer.strip():
                raise DataError(
                    f"{row.where}: the assistant's last message has tool calls only, no answer to "
                    "compare with"
                )
            return (answer,)
        case Pair(_, completion):
            return (completion,)
        case Text():
            raise DataError(
                f"{row.where}: a row with 'text' has no answer to compare with; give `template`, "
                "or rows with prompt and completion"
            )
