"""Data sets of random tokens, for the tests that run a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgezo_runtime.data.example_set import (
    Example,
    ExampleSet,
    Kind,
    LoadReport,
    TruncationReport,
    input_length,
)

MAX_SEQ = 64
ONE_TOKEN_WORDS = ((5,), (6,), (7,))
WORDS = ((5,), (6, 8), (7, 9, 10))
LABEL_TOKENS = {"labels": ONE_TOKEN_WORDS, "candidates": WORDS, "completion": ()}


def random_set(
    kind: Kind,
    sizes: Sequence[int],
    pad_id: int,
    *,
    labels: tuple[tuple[int, ...], ...] | None = None,
    scored: int = 3,
    seed: int = 0,
) -> ExampleSet:
    """Examples of so many input tokens (of the prompt for classes), the classes in turn.

    Args:
        scored: tokens of a completion that count.
    """
    labels = LABEL_TOKENS[kind] if labels is None else labels
    generator = np.random.default_rng(seed)
    examples = []
    for index, size in enumerate(sizes):
        tokens = generator.integers(11, 97, size + (kind == "completion")).astype(np.int32)
        places = np.array([size - 1], np.int32)
        if kind == "completion":
            places = np.arange(max(1, size + 1 - scored), size + 1, dtype=np.int32)
        label = index % len(labels) if labels else -1
        examples.append(Example(index, index + 1, tokens, places, label))
    lengths = [input_length(example, kind, labels) for example in examples]
    return ExampleSet(
        kind=kind,
        examples=tuple(examples),
        path=Path("train.jsonl"),
        sha256=f"{seed:064x}",
        max_seq=MAX_SEQ,
        pad_id=pad_id,
        report=LoadReport(len(sizes), sum(lengths), max(lengths), TruncationReport()),
        label_words=tuple(f" w{tokens}" for tokens in labels),
        label_tokens=labels,
    )
