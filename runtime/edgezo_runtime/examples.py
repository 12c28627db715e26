"""From a data file to token ids: `load_examples`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgezo_runtime.example_set import (
    DataWarning,
    Example,
    ExampleSet,
    Kind,
    LoadReport,
    TruncationReport,
)
from edgezo_runtime.row_reader import RowReader
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
