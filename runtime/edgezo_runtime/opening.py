"""What an app gives a tuner to learn from, made into examples; and what it may be asked later."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from edgezo_runtime.adapter import Adapter, load_adapter
from edgezo_runtime.answers import QuestionSet, ask
from edgezo_runtime.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.example_set import ExampleSet
from edgezo_runtime.random_rows import random_rows
from edgezo_runtime.row_reader import Fields, RowReader
from edgezo_runtime.run_folder import RunFolder
from edgezo_runtime.scope import Scope, invocation
from edgezo_runtime.tokenizer import TextTokenizer

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
    longest = bundle.manifest.model.max_seq - config.max_new_tokens
    if longest < 1:
        raise UsageError(
            f"max_new_tokens {config.max_new_tokens}: the model takes "
            f"{bundle.manifest.model.max_seq} tokens in all"
        )
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


def read_start(start: Adapter | str | Path | None, run: RunFolder) -> Adapter | None:
    """The adapter that a run is to begin from; where it is gone, the copy of a run that is there.

    Args:
        start: it, its file or its run folder; None for none.
        run: folder of the run.
    Raises:
        RunFileError: the file is no adapter.
    """
    if not isinstance(start, str | Path):
        return start
    gone = not Path(start).exists() and run.has_journal() and run.start.exists()
    return load_adapter(run.start if gone else Path(start))


def begin_from(
    start: Adapter | None, run: RunFolder, config: TuneConfig
) -> tuple[Adapter | None, TuneConfig]:
    """The adapter that a run begins from, its own copy where it has one; and how the run acts then.

    Args:
        start: what was asked for.
        run: folder of the run.
        config: how to tune.
    Raises:
        UsageError: an adapter acts on other tokens than were asked for.
    """
    if start is None and run.has_journal() and run.start.exists():
        start = load_adapter(run.start)
    if start is None:
        return None, config
    own = start.info.scope
    if config.scope not in ("auto", own):
        raise UsageError(
            f"--scope {config.scope}: {start.path} acts on {_ACTS[own]}; use --scope {own}"
        )
    return start, dataclasses.replace(config, scope=own)


_ACTS = {"all": "every token", "answer": "answers only"}
