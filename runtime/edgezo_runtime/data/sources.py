"""What an app gives a tuner to learn from, made into examples; and what it may be asked later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.answer_room import answer_room
from edgezo_runtime.data.example_set import (
    ExampleSet,
)
from edgezo_runtime.data.questions import QuestionSet, ask
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.scope import Scope, invocation
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError, UsageError

MAX_SEQ = 512
"""Longest row in tokens, unless the model takes less or the app says otherwise."""

_ROWS_AT_ONCE = 32
"""Rows of a pass that an app may ask for, in the plan."""

Source = ExampleSet | str | Path | Iterable[Fields]
"""Examples, a file or a folder of them, or rows in memory."""

Given = Source | QuestionSet
"""What a run may begin with."""


def open_tokenizer(bundle: Bundle) -> TextTokenizer:
    """The tokenizer of a bundle.

    Raises:
        BundleError: it is missing or damaged.
    """
    model = bundle.manifest.model
    return TextTokenizer.open(
        bundle.root, bundle.manifest.tokenizer, task=model.task, vocab_size=model.vocab_size
    )


def open_reader(
    bundle: Bundle, template: str | None, labels: Sequence[str], max_seq: int | None
) -> RowReader:
    """Read rows for a bundle.

    Args:
        bundle: the model.
        template: see `RowReader`, as for the others.
        labels: label words.
        max_seq: longest row in tokens; None takes `MAX_SEQ`. No more than the model's.
    Raises:
        UsageError: they make no sense together.
        BundleError: the bundle's tokenizer cannot be read.
    """
    if isinstance(labels, str):
        raise UsageError(f"labels {labels!r:.40}: expected a list of words, one a class")
    longest = min(MAX_SEQ if max_seq is None else max_seq, bundle.manifest.model.max_seq)
    return RowReader(open_tokenizer(bundle), template, tuple(labels), longest)


def read_source(
    reader: RowReader,
    source: Source,
    like: ExampleSet | None = None,
    *,
    split: Literal["train", "valid"] = "train",
) -> ExampleSet:
    """Make examples of what an app gave.

    Args:
        reader: of rows.
        source: what it gave.
        like: a set that they go with.
        split: which file of a folder.
    Raises:
        DataError: a row is wrong.
    """
    if isinstance(source, ExampleSet):
        return source
    if isinstance(source, str | Path):
        return reader.read(source, split=split, like=like)
    return reader.take(source, like=like)


def read_given(
    bundle: Bundle,
    given: Given,
    config: TuneConfig,
    template: str | None,
    labels: Sequence[str],
    max_seq: int | None,
) -> tuple[ExampleSet | QuestionSet, RowReader | None]:
    """What a run begins with: questions where it answers in writing.

    Args:
        bundle: the model.
        given: what the app gave.
        config: how to tune.
        template: see `RowReader`, as for the others.
        labels: label words.
        max_seq: longest row in tokens; see `open_reader`.
    Returns:
        Examples or questions, and what reads more of the kind; None where the app gave tokens.
    Raises:
        UsageError: they make no sense together.
        DataError: a row is wrong.
        BundleError: the bundle's tokenizer cannot be read.
    """
    if isinstance(given, QuestionSet):
        return given, None
    if isinstance(given, ExampleSet) and not (template or labels or max_seq is not None):
        return given, None
    if not config.writes or labels or isinstance(given, ExampleSet):
        reader = open_reader(bundle, template, labels, max_seq)
        return read_source(reader, given), reader
    longest = answer_room(bundle.manifest.model.max_seq, config.max_new_tokens)
    most = min(MAX_SEQ if max_seq is None else max_seq, longest)
    reader = open_reader(bundle, template, labels, most)
    return ask(reader, given), reader


def rows_to_come(bundle: Bundle, examples: ExampleSet, longest: int) -> ExampleSet:
    """Rows as long as any may be, of any text, to plan for.

    Args:
        bundle: the model.
        examples: those a run begins with.
        longest: tokens of a row.
    """
    model = bundle.manifest.model
    by_label = examples.kind == "labels"
    label_ids = [tokens[0] for tokens in examples.label_tokens] if by_label else []
    tokens = longest if by_label else longest + 1  # the last is only predicted
    return random_rows(_ROWS_AT_ONCE, max(2, tokens), model.vocab_size, label_ids)


def require_alike(more: ExampleSet, own: ExampleSet, longest: int | None, scope: Scope) -> None:
    """Refuse examples that do not go with those of a run.

    Args:
        more: what is to be added.
        own: the run's.
        longest: tokens of a row that the run is planned for; None where nothing was planned.
        scope: tokens the adapters act on.
    Raises:
        DataError: saying what is different.
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
            f"larger max_seq"
        )
    begins = invocation(own) if scope == "answer" else ()
    if begins and invocation(more) != begins:
        raise DataError(
            f"{more.path}: a row whose answer begins after another token than those of the run; "
            f"end all prompts alike, or open the run with scope 'all'"
        )


def load_examples(
    path: str | Path,
    tokenizer: TextTokenizer,
    *,
    template: str | None = None,
    labels: Sequence[str] = (),
    max_seq: int,
    split: str | None = None,
    limit: int | None = None,
) -> ExampleSet:
    """Read, check and tokenize a data file.

    Args:
        path: see `RowReader.read`.
        tokenizer: the bundle's tokenizer.
        template: see `RowReader`, as for the others.
        labels: label words.
        max_seq: longest input in tokens.
        split: which file of a folder.
        limit: use the first rows only; None uses all.

    Raises:
        UsageError: template, labels, `max_seq`, `split` or `limit` make no sense.
        DataError: the file, or a row of it, is wrong; the message has the line.
        BundleError: the rows need a chat template and the bundle has no usable one.
    """
    reader = RowReader(tokenizer, template, tuple(labels), max_seq)
    return reader.read(path, split=split, limit=limit)
