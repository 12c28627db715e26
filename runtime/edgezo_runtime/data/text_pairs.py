"""Pairs of texts that belong together: the rows of embedding models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgezo_runtime.data.example_set import DataWarning, Example, TruncationReport
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.reading import LongRows
from edgezo_runtime.data.template import kind_of, list_fields
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.data.unused_fields import unused_by_template
from edgezo_runtime.errors import DataError, MissingFieldError

PAIR_FIELDS = (
    ("anchor", "positive"),
    ("query", "positive"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "answer"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
)
"""Names of the two texts of a row; the first pair that a row has counts."""


@dataclass(frozen=True, slots=True)
class PairRows:
    """Examples of two texts each, with the parts of `ExampleSet` and its report."""

    examples: tuple[Example, ...]
    truncation: TruncationReport
    warnings: tuple[DataWarning, ...]


def build_pairs(
    rows: Iterable[Row], tokenizer: TextTokenizer, max_seq: int, *, long: LongRows = "truncate"
) -> PairRows:
    """Tokenize rows with two texts that belong together.

    Args:
        rows: the rows.
        tokenizer: the tokenizer of an embedding model.
        max_seq: longest text in tokens, special tokens included.
        long: what happens to longer texts: they lose their end, or their row is left out.
    Returns:
        The examples, numbered from 0: the tokens of both texts one after the other, and as places
        the last token of each.
    Raises:
        DataError: a row lacks one of the texts, or one is empty.
    """
    examples: list[Example] = []
    truncation = TruncationReport()
    unused = unused_by_template()
    for row in rows:
        names = next((pair for pair in PAIR_FIELDS if set(pair) <= row.fields.keys()), None)
        if names is None:
            known = ", ".join(f"{first}/{second}" for first, second in PAIR_FIELDS)
            raise MissingFieldError(
                f"{row.where}: no pair of texts; the row has {list_fields(row.fields)}, expected "
                f"one of {known}"
            )
        unused.look(row.fields, frozenset(names), "pairs of texts")
        texts = [_tokens(row, name, tokenizer) for name in names]
        over = sum(max(0, len(tokens) - max_seq) for tokens in texts)
        if over and long == "drop":
            truncation = truncation.plus_dropped()
            continue
        truncation = truncation.plus(over)
        cut = [_shortened(tokens, max_seq) for tokens in texts]
        tokens = np.array([*cut[0], *cut[1]], np.int32)
        places = np.array([len(cut[0]) - 1, len(tokens) - 1], np.int32)
        examples.append(Example(len(examples), row.line, tokens, places))
    return PairRows(tuple(examples), truncation, tuple(unused.warnings()))


def _tokens(row: Row, name: str, tokenizer: TextTokenizer) -> list[int]:
    text = row.fields[name]
    if not isinstance(text, str):
        raise DataError(f"{row.where}: field {name!r} is {kind_of(text)}, expected a text")
    if not text.strip():
        raise DataError(f"{row.where}: field {name!r} is empty; give both texts of a pair")
    return tokenizer.encode(text, add_special=True)


def _shortened(tokens: list[int], longest: int) -> list[int]:
    """Leave out tokens before the last one, which ends a text."""
    if len(tokens) <= longest:
        return tokens
    return [*tokens[: longest - 1], tokens[-1]] if longest > 1 else tokens[:1]
