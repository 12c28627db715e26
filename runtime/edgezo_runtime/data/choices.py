"""Multiple choice: each row has its own choices, scored by the mean log-probability of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.bos import bos_warning
from edgezo_runtime.data.example_set import (
    DataWarning,
    Example,
    ExampleSet,
    LoadReport,
    TruncationReport,
)
from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.folders import Paths, resolve
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.reading import LongRows
from edgezo_runtime.data.row_reader import all_too_long, truncation_warning
from edgezo_runtime.data.template import Template, check_text, kind_of, list_fields
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.data.truncation import truncate_prompt
from edgezo_runtime.errors import DataError, UsageError

_LABELS = ("label", "answer")
_MOST = 64


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceSet:
    """Rows with choices.

    Attributes:
        examples: one completion per choice; rows and their choices stay in order.
        rows: (examples,) the row of each example.
        labels: (rows,) the right choice of each row.
    """

    examples: ExampleSet
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def predictions(self, losses: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the most likely choice of each row; the first one of equals.

        Args:
            losses: (examples,) minus the mean log-probability of each choice's tokens.
        """
        starts = np.searchsorted(self.rows, np.arange(len(self.labels)))
        parts = np.split(losses, starts[1:])
        return np.array([int(np.argmin(part)) for part in parts], np.int64)


def load_choices(
    path: Paths | DataFiles,
    tokenizer: TextTokenizer,
    *,
    template: str,
    field: str,
    max_seq: int,
    split: str | None = None,
    limit: int | None = None,
    long: LongRows = "truncate",
) -> ChoiceSet:
    """Read and tokenize rows with choices.

    Args:
        path: files, as in `RowReader.read`.
        tokenizer: the bundle's tokenizer.
        template: prompt with fields in braces; a space follows it if neither the prompt ends with
            one nor the choice begins with one.
        field: the row's field with its choices, an array of at least two texts. The field `label`
            or `answer` names the right choice by its number from 0 or its text.
        max_seq: longest input in tokens; the longest fields of the prompt lose their end.
        split: the file of a folder to read.
        limit: number of first rows to use; None uses all.
        long: what happens to rows that are longer: "drop" leaves them out.
    Raises:
        UsageError: the template is wrong, or the model is an encoder.
        DataError: a row is wrong or too long.
        BundleError: the tokenizer cannot tokenize a row.
    """
    if tokenizer.encodes:
        raise UsageError(
            f"`choices`: a {tokenizer.task} bundle scores label words only; give `labels`"
        )
    prompt = Template.parse(template)
    files = resolve(path, split)
    examples: list[Example] = []
    rows: list[int] = []
    labels: list[int] = []
    truncation = TruncationReport()
    with_bos = 0
    for row in files.rows(limit):
        choices = _choices(row, field)
        label = _label(row, choices)
        values = prompt.values(row.fields, row.where)
        before = prompt.render(values)
        words = [tokenizer.encode(_spaced(before, text), add_special=False) for text in choices]
        if not all(words):
            raise DataError(f"{row.where}: a choice of '{field}' has no tokens; fill it")
        room = max_seq - max(map(len, words)) + 1
        if room < 1:
            raise DataError(f"{row.where}: a choice of '{field}' is longer than {max_seq} tokens")
        shortened = truncate_prompt(prompt, values, tokenizer, room, row.where)
        if not shortened.tokens:
            raise DataError(
                f"{row.where}: the prompt has no tokens; write something before the choice"
            )
        if shortened.dropped and long == "drop":
            truncation = truncation.plus_dropped()
            continue
        truncation = truncation.plus(shortened.dropped)
        with_bos += tokenizer.writes_bos(shortened.text)
        for word in words:
            tokens = np.array([*shortened.tokens, *word], np.int32)
            places = np.arange(len(shortened.tokens), tokens.size, dtype=np.int32)
            examples.append(Example(len(examples), row.line, tokens, places))
            rows.append(len(labels))
        labels.append(label)
    if not examples:
        raise all_too_long(files.path, truncation, max_seq, long)
    warnings = (
        *truncation_warning(truncation, len(labels), max_seq, tokenizer.remedy_for_length(max_seq)),
        *bos_warning(tokenizer, with_bos),
    )
    return ChoiceSet(
        _example_set(examples, files, max_seq, tokenizer, truncation, warnings),
        np.array(rows, np.int64),
        np.array(labels, np.int64),
    )


def _example_set(
    examples: list[Example],
    files: DataFiles,
    max_seq: int,
    tokenizer: TextTokenizer,
    truncation: TruncationReport,
    warnings: tuple[DataWarning, ...],
) -> ExampleSet:
    sizes = [int(example.tokens.size) - 1 for example in examples]
    report = LoadReport(len(examples), sum(sizes), max(sizes), truncation, warnings=warnings)
    return ExampleSet(
        "completion",
        tuple(examples),
        files.path,
        files.sha256(),
        max_seq,
        tokenizer.pad_id,
        report,
    )


def _spaced(before: str, choice: str) -> str:
    return choice if before[-1:].isspace() or choice[0].isspace() else f" {choice}"


def _choices(row: Row, field: str) -> list[str]:
    value = row.fields.get(field)
    if field not in row.fields:
        raise DataError(f"{row.where}: no field '{field}'; the row has {list_fields(row.fields)}")
    if not isinstance(value, list) or not 2 <= len(value) <= _MOST:
        found = f"an array of {len(value)}" if isinstance(value, list) else kind_of(value)
        raise DataError(
            f"{row.where}: field '{field}' is {found}, expected an array of 2 to {_MOST} texts"
        )
    for text in value:
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{row.where}: a choice of '{field}' is {kind_of(text)} or empty")
        check_text(text, f"field '{field}'", row.where)
    return value


def _label(row: Row, choices: list[str]) -> int:
    for name in _found(row):
        value = row.fields[name]
        if type(value) is int and 0 <= value < len(choices):
            return value
        if isinstance(value, str) and value in choices:
            return choices.index(value)
        raise DataError(
            f"{row.where}: field '{name}' names none of the {len(choices)} choices; give a number "
            f"from 0, or the text of a choice"
        )
    raise DataError(f"{row.where}: no right choice; add a field {' or '.join(map(repr, _LABELS))}")


def _found(row: Row) -> Iterator[str]:
    return (name for name in _LABELS if row.fields.get(name) is not None)
