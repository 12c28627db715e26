"""From a data file to token ids: `load_examples`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edgezo_runtime.completions import build_completions
from edgezo_runtime.digest import sha256_file
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.example_set import (
    DataWarning,
    Example,
    ExampleSet,
    Kind,
    LoadReport,
    TruncationReport,
    input_length,
)
from edgezo_runtime.label_words import build_labelled
from edgezo_runtime.records import Row, read_rows, resolve
from edgezo_runtime.template import Template
from edgezo_runtime.tokenizer import TextTokenizer

__all__ = [
    "DataWarning",
    "Example",
    "ExampleSet",
    "Kind",
    "LoadReport",
    "TruncationReport",
    "load_examples",
]


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

    With `template` and `labels` the rows are classified by label words; with `template` alone the
    template makes the prompt and the row has the completion; with neither the rows are recognised
    by their fields (`records.ROW_FIELDS`).

    Args:
        path: a .jsonl file, or a folder with train.jsonl, valid.jsonl or validation.jsonl,
            test.jsonl.
        tokenizer: the bundle's tokenizer.
        template: prompt with fields in braces, such as "{sentence} It was".
        labels: label words in class order, leading spaces included, such as " terrible".
        max_seq: longest input in tokens; longer rows are cut and counted.
        split: which file of a folder ("train", "valid", "test"); None means train. A file is read
            whatever it says.
        limit: use the first rows only; None uses all.

    Returns:
        The examples, with counts and named warnings in their `report`.

    Raises:
        UsageError: template, labels, `max_seq`, `split` or `limit` make no sense.
        DataError: the file, or a row of it, is wrong; the message has the line.
        BundleError: the rows need a chat template and the bundle has no usable one.

    Memory:
        The token ids (4 bytes each, about 400 bytes an example besides) and one line of text.
    """
    if max_seq < 1:
        raise UsageError(f"max_seq must be 1 token or more, not {max_seq}")
    if labels and template is None:
        raise UsageError("label words need a prompt; give --template '{field} ...' with --label")
    prompt = None if template is None else Template.parse(template)
    file = resolve(path, split)

    def rows() -> Iterable[Row]:
        return read_rows(file, limit)

    if prompt is not None and labels:
        labelled = build_labelled(rows, tokenizer, prompt, labels, max_seq)
        kind, examples, label_tokens = labelled.kind, labelled.examples, labelled.label_tokens
        truncation, counts, notes = (
            labelled.truncation,
            labelled.class_counts,
            labelled.warnings,
        )
    else:
        plain = build_completions(rows(), tokenizer, prompt, max_seq)
        kind, examples, label_tokens = "completion", plain.examples, ()
        truncation, counts, notes = plain.truncation, (), plain.warnings
    lengths = [input_length(example, kind, label_tokens) for example in examples]
    return ExampleSet(
        kind=kind,
        examples=examples,
        path=file,
        sha256=_digest(file),
        max_seq=max_seq,
        pad_id=tokenizer.pad_id,
        report=LoadReport(
            rows=len(examples),
            tokens=sum(lengths),
            longest=max(lengths),
            truncation=truncation,
            class_counts=counts,
            warnings=(*_truncation_warning(truncation, len(examples), max_seq), *notes),
        ),
        label_words=tuple(labels),
        label_tokens=label_tokens,
    )


def _truncation_warning(
    truncation: TruncationReport, rows: int, max_seq: int
) -> Iterable[DataWarning]:
    if truncation.rows:
        yield DataWarning(
            "truncated",
            f"{truncation.rows} of {rows} rows are longer than {max_seq} tokens and lost "
            f"{truncation.prompt_tokens} tokens of prompt and {truncation.completion_tokens} of "
            "completion; raise --max-seq to keep them",
            truncation.rows,
        )


def _digest(file: Path) -> str:
    try:
        return sha256_file(file)
    except OSError as error:
        raise DataError(f"{file}: cannot read the file: {error.strerror}") from error
