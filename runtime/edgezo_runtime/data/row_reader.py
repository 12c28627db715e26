"""The reader of rows: tokenizer, template and label words turn rows of text into examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgezo_runtime.data.completions import build_completions
from edgezo_runtime.data.example_set import (
    DataWarning,
    ExampleSet,
    Kind,
    LoadReport,
    TruncationReport,
    input_length,
)
from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.folders import Paths, resolve
from edgezo_runtime.data.files.place import Place
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.label_words import build_labelled
from edgezo_runtime.data.reading import MAX_SEQ, LongRows, Reading, TrainOn
from edgezo_runtime.data.template import Template, kind_of
from edgezo_runtime.data.text_pairs import build_pairs
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError, UsageError

Fields = Mapping[str, Any]
"""A row: its fields by name, as in a line of a JSON Lines file."""


_TOLD_ROWS = 250


@dataclass(frozen=True, slots=True)
class RowReader:
    """Makes examples from rows of a file or rows in memory.

    With `template` and `labels`, label words classify the rows. With `template` alone, the template
    makes the prompt and the row contains the completion. With neither, the fields of a row say how
    to read it (`row_content.ROW_FIELDS`).

    Attributes:
        tokenizer: the bundle's tokenizer.
        template: prompt with fields in braces, such as "{sentence} It was".
        labels: label words in class order, leading spaces included, such as " terrible".
        max_seq: longest input in tokens; longer rows are truncated and counted.
        train_on: turns of a conversation that are scored: all of the assistant's, or the last one.
        long: what happens to rows longer than `max_seq`: "truncate" cuts them as `truncation` says,
            "drop" leaves them out.
        tell: given the number of rows read and about that of all, now and then; 0 if nothing is
            known of that. Not a setting.

    Raises:
        UsageError: the settings contradict each other.
    """

    tokenizer: TextTokenizer
    template: str | None = None
    labels: tuple[str, ...] = ()
    max_seq: int = MAX_SEQ
    train_on: TrainOn = "all"
    long: LongRows = "truncate"
    tell: Callable[[int, int], None] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        self.reading.check()
        if self.tokenizer.task == "embedding" and self.template is not None:
            raise UsageError(
                "an embedding bundle reads pairs of texts (fields such as query and passage), "
                "without `template` and `labels`"
            )

    @property
    def reading(self) -> Reading:
        """The settings, without the tokenizer."""
        return Reading.of(self)

    def read(
        self,
        path: Paths | DataFiles,
        *,
        split: str | None = None,
        limit: int | None = None,
        like: ExampleSet | None = None,
        questions: bool = False,
    ) -> ExampleSet:
        """Read, check and tokenize a data file.

        Args:
            path: a file, a folder with a file or several per split, or several of them, in the
                formats of `docs/data.md`.
            split: the file of a folder to read ("train", "valid", "test"); None means train. It
                has no effect on a single file.
            limit: number of first rows to use; None uses all.
            like: a set whose label tokens the new examples take.
            questions: score the assistant's last turn only, whatever `train_on` and weights say.

        Returns:
            The examples, with counts and named warnings in their `report`.

        Raises:
            UsageError: `split` or `limit` are wrong.
            DataError: the file or a row is wrong; the message names the line.
            BundleError: the rows need a chat template and the bundle has no usable one.

        Memory:
            The token ids (4 bytes each), about 400 bytes per example, and one line of text.
        """
        files = resolve(path, split)
        return self._build(
            lambda: self._telling(files, limit), files.path, files.sha256, like, questions=questions
        )

    def take(
        self,
        rows: Iterable[Fields],
        *,
        like: ExampleSet | None = None,
        with_class: bool = True,
        questions: bool = False,
    ) -> ExampleSet:
        """Check and tokenize rows in memory.

        Args:
            rows: at least one row.
            like: a set whose label tokens the new examples take.
            with_class: False if the rows have no class yet; then none is left out.
            questions: as in `read`.

        Raises:
            DataError: a row is wrong, or there is none; the message names its number, from 1.
            BundleError: the rows need a chat template and the bundle has no usable one.
        """
        kept = list(numbered(rows))
        if not kept:
            raise DataError("no rows; expected at least one")
        digest = lambda: _rows_digest(kept)  # noqa: E731  # lazy, as for files
        return self._build(
            lambda: kept, Path("rows"), digest, like, with_class=with_class, questions=questions
        )

    def text_row(self, text: str) -> Fields:
        """Make a row whose only field, the template's, is this text.

        Raises:
            UsageError: the template has more than one field, or there is no template.
        """
        prompt = self._prompt()
        names = set() if prompt is None else set(prompt.names)
        if len(names) != 1:
            raise UsageError(f"a text fills one field, the template has {len(names)}; give a row")
        return {names.pop(): text}

    def _telling(self, files: DataFiles, limit: int | None) -> Iterator[Row]:
        """The rows of files; tells how many have been read, every `_TOLD_ROWS`."""
        place = Place(files.files, limit)
        for count, row in enumerate(files.rows(limit, place)):
            if self.tell is not None and count % _TOLD_ROWS == 0:
                self.tell(count, place.expected(count))
            yield row

    def _prompt(self) -> Template | None:
        return None if self.template is None else Template.parse(self.template)

    def _build(
        self,
        rows: Callable[[], Iterable[Row]],
        path: Path,
        digest: Callable[[], str],
        like: ExampleSet | None,
        *,
        with_class: bool = True,
        questions: bool = False,
    ) -> ExampleSet:
        prompt = self._prompt()
        long = self.long if with_class else "truncate"  # every row to classify gets an answer
        kind: Kind
        label_tokens: tuple[tuple[int, ...], ...]
        counts: tuple[int, ...]
        if self.tokenizer.task == "embedding":
            pairs = build_pairs(rows(), self.tokenizer, self.max_seq, long=long)
            kind, examples, counts = "pairs", pairs.examples, ()
            label_tokens = tuple((number,) for number in range(self.tokenizer.width))
            truncation, notes = pairs.truncation, pairs.warnings
        elif prompt is not None and self.labels:
            labelled = build_labelled(
                rows,
                self.tokenizer,
                prompt,
                self.labels,
                self.max_seq,
                known=None if like is None else like.label_tokens,
                with_class=with_class,
                long=long,
            )
            kind, examples, label_tokens = labelled.kind, labelled.examples, labelled.label_tokens
            truncation, counts = labelled.truncation, labelled.class_counts
            notes = labelled.warnings
        else:
            plain = build_completions(
                rows(),
                self.tokenizer,
                prompt,
                self.max_seq,
                train_on="answer" if questions else self.train_on,
                long=long,
            )
            kind, examples, label_tokens = "completion", plain.examples, ()
            truncation, counts, notes = plain.truncation, (), plain.warnings
        if not examples:
            raise all_too_long(path, truncation, self.max_seq, self.long)
        lengths = [input_length(example, kind, label_tokens) for example in examples]
        return ExampleSet(
            kind=kind,
            examples=examples,
            path=path,
            sha256=digest(),
            max_seq=self.max_seq,
            pad_id=self.tokenizer.pad_id,
            report=LoadReport(
                rows=len(examples),
                tokens=sum(lengths),
                longest=max(lengths),
                truncation=truncation,
                class_counts=counts,
                warnings=(
                    *truncation_warning(
                        truncation,
                        len(examples),
                        self.max_seq,
                        self.tokenizer.remedy_for_length(self.max_seq),
                    ),
                    *notes,
                ),
            ),
            label_words=self.labels,
            label_tokens=label_tokens,
            reading=self.reading,
        )


def numbered(rows: Iterable[Fields]) -> Iterator[Row]:
    """Number rows in memory, from 1.

    Raises:
        DataError: a row is not a dict.
    """
    for number, fields in enumerate(rows, 1):
        where = f"row {number}"
        if not isinstance(fields, Mapping):
            raise DataError(f"{where}: found {kind_of(fields)}, expected a dict of its fields")
        yield Row(dict(fields), number, where)


def truncation_warning(
    truncation: TruncationReport, rows: int, max_seq: int, remedy: str = "raise `max_seq`"
) -> Iterable[DataWarning]:
    """Warn with counts if rows were truncated or left out.

    Args:
        truncation: what rows lost.
        rows: rows that are left.
        max_seq: longest row in tokens.
        remedy: as `TextTokenizer.remedy_for_length` says it.
    """
    dropped = truncation.dropped_rows
    if truncation.rows:
        lost = [
            (truncation.prompt_rows, truncation.prompt_tokens, "of the prompt"),
            (truncation.completion_rows, truncation.completion_tokens, "of the answer's end"),
        ]
        parts = [f"{count} lost {tokens} tokens {what}" for count, tokens, what in lost if count]
        yield DataWarning(
            "truncated",
            f"{truncation.rows} of {rows + dropped} rows are longer than {max_seq} tokens: "
            f"{', '.join(parts)}; {remedy}, or set `long` to drop",
            truncation.rows,
        )
    if dropped:
        yield DataWarning(
            "dropped",
            f"{dropped} of {rows + dropped} rows are longer than {max_seq} tokens and are left "
            f"out; {remedy}",
            dropped,
        )


def all_too_long(
    path: Path, truncation: TruncationReport, max_seq: int, long: LongRows
) -> DataError:
    """Make the error for rows none of which is left."""
    other = ", or set `long` to truncate" if long == "drop" else ""
    return DataError(
        f"{path}: all {truncation.dropped_rows} rows are longer than {max_seq} tokens and are left "
        f"out, so there is nothing to learn; raise `max_seq`{other}"
    )


def _rows_digest(rows: Sequence[Row]) -> str:
    """Return the SHA-256 of rows as JSON Lines with sorted keys.

    Raises:
        DataError: a row is not JSON.
    """
    digest = hashlib.sha256()
    for row in rows:
        try:
            line = json.dumps(row.fields, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DataError(f"{row.where}: not JSON: {error}") from error
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
