"""Rows of random tokens, all of one length, for plans and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgezo_runtime.data.example_set import Example, ExampleSet, LoadReport, TruncationReport


def random_rows(
    count: int, tokens: int, vocab_size: int, label_ids: Sequence[int] = ()
) -> ExampleSet:
    """Make rows of random tokens; the same arguments give the same rows.

    Args:
        count: number of rows.
        tokens: tokens per row, 2 or more.
        vocab_size: upper bound of the token ids, exclusive.
        label_ids: token of each class; without classes every token but the first is scored.
    """
    generator = np.random.default_rng(0)
    labelled = bool(label_ids)
    first_scored = tokens - 1 if labelled else 1
    examples = tuple(
        Example(
            example_id=number,
            line=number + 1,
            tokens=_with_common_end(generator.integers(1, vocab_size, size=tokens, dtype=np.int32)),
            places=np.arange(first_scored, tokens, dtype=np.int32),
            label=number % len(label_ids) if labelled else -1,
        )
        for number in range(count)
    )
    return ExampleSet(
        kind="labels" if labelled else "completion",
        examples=examples,
        path=Path("random rows"),
        sha256="0" * 64,
        max_seq=tokens,
        pad_id=0,
        report=LoadReport(count, count * tokens, tokens, TruncationReport()),
        label_words=tuple(f" class{number}" for number in range(len(label_ids))),
        label_tokens=tuple((token,) for token in label_ids),
    )


def _with_common_end(tokens: np.ndarray) -> np.ndarray:
    """End every row with the same token, as prompts of one template do."""
    tokens[-1] = 0
    return tokens
