"""Sources of examples: open a bundle's reader, read files and rows, check what an app adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.answer_room import answer_room
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.folders import Paths, paths_of
from edgezo_runtime.data.questions import QuestionSet, make_questions
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.data.reading import MAX_SEQ, LongRows, TrainOn
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.scope import Scope, invocation
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError, UsageError

_ROWS_AT_ONCE = 32
"""Rows of one forward pass, in a plan for rows that an app adds later."""

Source = ExampleSet | DataFiles | str | Path | Sequence[Path] | Iterable[Fields]
"""Examples, a file or a folder of files or several of them, or rows in memory."""

Given = Source | QuestionSet
"""The data with which a run begins."""


def open_tokenizer(bundle: Bundle) -> TextTokenizer:
    """Open the tokenizer of a bundle.

    Raises:
        BundleError: it is missing or damaged.
    """
    model = bundle.manifest.model
    return TextTokenizer.open(
        bundle.root,
        bundle.manifest.tokenizer,
        task=model.task,
        vocab_size=model.vocab_size,
        longest=model.max_seq,
        width=model.hidden_size,
        classes=_classes(bundle),
    )


def open_reader(
    bundle: Bundle,
    template: str | None,
    labels: Sequence[str],
    max_seq: int | None,
    *,
    train_on: TrainOn | None = None,
    long: LongRows | None = None,
) -> RowReader:
    """Open a reader of rows for a bundle.

    Args:
        bundle: the model.
        template: prompt template, as in `RowReader`.
        labels: label words, as in `RowReader`.
        max_seq: longest row in tokens; None takes `MAX_SEQ`. The model's limit applies too.
        train_on: turns that are scored, as in `RowReader`; None takes all.
        long: what happens to longer rows, as in `RowReader`; None cuts them.
    Raises:
        UsageError: the settings contradict each other.
        BundleError: the bundle's tokenizer cannot be read.
    """
    if isinstance(labels, str):
        raise UsageError(f"`labels` {labels!r:.40}: expected a list of words, one per class")
    longest = min(MAX_SEQ if max_seq is None else max_seq, bundle.manifest.model.max_seq)
    tokenizer = open_tokenizer(bundle)
    return RowReader(
        tokenizer,
        template,
        tuple(labels),
        longest,
        train_on or "all",
        long or "truncate",
    )


def _classes(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of the classes of a classification head."""
    if bundle.manifest.model.task != "classification":
        return ()
    names = bundle.manifest.base_config.get("id2label")
    if not isinstance(names, dict):
        return ("0", "1")  # what transformers leaves out
    return tuple(str(name) for name in names.values())


def load_examples(
    path: Paths | DataFiles,
    tokenizer: TextTokenizer,
    *,
    template: str | None = None,
    labels: Sequence[str] = (),
    max_seq: int,
    split: str | None = None,
    limit: int | None = None,
    train_on: TrainOn = "all",
    long: LongRows = "truncate",
) -> ExampleSet:
    """Read, check and tokenize a data file with a tokenizer that is open already.

    Args:
        path: a file or folder, as in `RowReader.read`.
        tokenizer: the bundle's tokenizer.
        template: prompt template, as in `RowReader`.
        labels: label words, as in `RowReader`.
        max_seq: longest input in tokens.
        split: the file of a folder to read.
        limit: number of first rows to use; None uses all.
        train_on: turns that are scored, as in `RowReader`.
        long: what happens to longer rows, as in `RowReader`.

    Raises:
        UsageError: template, labels, `max_seq`, `split` or `limit` are wrong.
        DataError: the file or a row is wrong; the message names the line.
        BundleError: the rows need a chat template and the bundle has no usable one.
    """
    reader = RowReader(tokenizer, template, tuple(labels), max_seq, train_on, long)
    return reader.read(path, split=split, limit=limit)


def read_source(
    reader: RowReader,
    source: Source,
    like: ExampleSet | None = None,
    *,
    split: Literal["train", "valid"] = "train",
) -> ExampleSet:
    """Read examples from an app's source.

    Args:
        reader: reader of rows.
        source: examples, a file or folder, or rows in memory.
        like: a set whose label tokens the new examples take.
        split: the file of a folder to read.
    Raises:
        DataError: a row is wrong.
    """
    if isinstance(source, ExampleSet):
        return source
    paths = paths_of(source)
    if paths is not None:
        return reader.read(paths, split=split, like=like)
    return reader.take(cast(Iterable[Fields], source), like=like)


def read_given(
    bundle: Bundle,
    given: Given,
    config: TuneConfig,
    template: str | None,
    labels: Sequence[str],
    max_seq: int | None,
    *,
    train_on: TrainOn | None = None,
    long: LongRows | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> tuple[ExampleSet | QuestionSet, RowReader | None]:
    """Read the data with which a run begins.

    An objective that scores generated answers needs questions; other objectives need examples.

    Args:
        bundle: the model.
        given: the app's data.
        config: how to tune.
        template: prompt template, as in `RowReader`.
        labels: label words, as in `RowReader`.
        max_seq: longest row in tokens, as in `open_reader`.
        train_on: turns that are scored, as in `open_reader`.
        long: what happens to longer rows, as in `open_reader`.
        tell: as for `RowReader`.
    Returns:
        Examples or questions, and the reader for later rows; None if the app gave tokens.
    Raises:
        UsageError: the settings contradict each other.
        DataError: a row is wrong.
        BundleError: the bundle's tokenizer cannot be read.
    """
    if isinstance(given, QuestionSet):
        return given, None
    if isinstance(given, ExampleSet) and not (template or labels or max_seq is not None):
        return given, None
    if not config.needs_answers or labels or isinstance(given, ExampleSet):
        reader = open_reader(bundle, template, labels, max_seq, train_on=train_on, long=long)
        reader = replace(reader, tell=tell)
        return read_source(reader, given), reader
    room = answer_room(bundle.manifest.model.max_seq, config.max_new_tokens)
    longest = min(MAX_SEQ if max_seq is None else max_seq, room)
    reader = open_reader(bundle, template, labels, longest, train_on=train_on, long=long)
    reader = replace(reader, tell=tell)
    return make_questions(reader, given), reader


def rows_to_come(bundle: Bundle, examples: ExampleSet, longest: int) -> ExampleSet:
    """Make rows of the greatest length, to plan for rows that an app adds later.

    Args:
        bundle: the model.
        examples: the examples with which the run begins.
        longest: tokens per row.
    """
    model = bundle.manifest.model
    by_label = examples.kind == "labels"
    label_ids = [tokens[0] for tokens in examples.label_tokens] if by_label else []
    tokens = longest if by_label else longest + 1  # the model does not read the last target
    return random_rows(_ROWS_AT_ONCE, max(2, tokens), model.vocab_size, label_ids)


def require_alike(more: ExampleSet, own: ExampleSet, longest: int | None, scope: Scope) -> None:
    """Refuse examples that do not match the examples of a run.

    Args:
        more: the examples to add.
        own: the run's examples.
        longest: tokens per row that the run is planned for; None if nothing was planned.
        scope: tokens on which the adapters act.
    Raises:
        DataError: names the difference.
    """
    if (more.kind, more.label_tokens) != (own.kind, own.label_tokens):
        raise DataError(
            f"{more.path}: examples of kind {more.kind} with {more.num_classes} classes; the run's "
            f"are of kind {own.kind} with {own.num_classes}"
        )
    most = own.max_seq if longest is None else min(own.max_seq, longest)
    found = int(more.lengths().max())
    if found > most:
        raise DataError(
            f"{more.path}: a row of {found} tokens; the run is planned for {most}, open it with a "
            f"larger `max_seq`"
        )
    first = invocation(own) if scope == "answer" else ()
    if first and invocation(more) != first:
        raise DataError(
            f"{more.path}: the answer of a row begins after another token than the run's answers; "
            f"end all prompts with the same text, or open the run with `scope` all"
        )
