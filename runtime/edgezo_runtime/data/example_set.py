"""Tokenized examples with the places that are scored, and a report of their loading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.reading import Reading

Kind = Literal["labels", "candidates", "completion", "pairs"]
"""How examples are scored.

"labels": every class is one token; the classes are compared at one place. "candidates": a class is
a sequence of tokens, scored by their mean log-probability. "completion": language modelling.
"pairs": two texts whose embeddings are compared with those of the other examples of a batch.
"""

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class DataWarning:
    """A warning that does not stop the run.

    Attributes:
        name: stable name for tests and programs: "truncated", "label-boundary", ...
        message: text for people, in the style of the errors.
        count: number of rows concerned.
    """

    name: str
    message: str
    count: int


@dataclass(frozen=True, slots=True)
class TruncationReport:
    """Counts of rows that were too long, by what they lost.

    Attributes:
        rows: number of rows that lost tokens.
        prompt_tokens: tokens that prompts lost.
        completion_tokens: tokens that answers lost.
        prompt_rows: rows that lost a part of the prompt.
        completion_rows: rows that lost the end of the answer; no end token is learned from them.
        dropped_rows: rows that were left out.
    """

    rows: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_rows: int = 0
    completion_rows: int = 0
    dropped_rows: int = 0

    @property
    def tokens(self) -> int:
        """Return the number of all removed tokens."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, prompt_tokens: int, completion_tokens: int = 0) -> TruncationReport:
        """Count one more row, unless no token was removed from it."""
        if prompt_tokens == completion_tokens == 0:
            return self
        return replace(
            self,
            rows=self.rows + 1,
            prompt_tokens=self.prompt_tokens + prompt_tokens,
            completion_tokens=self.completion_tokens + completion_tokens,
            prompt_rows=self.prompt_rows + (prompt_tokens > 0),
            completion_rows=self.completion_rows + (completion_tokens > 0),
        )

    def plus_dropped(self) -> TruncationReport:
        """Count one more row that is left out."""
        return replace(self, dropped_rows=self.dropped_rows + 1)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Counts of one load.

    Attributes:
        rows: number of rows read.
        tokens: input tokens of all sequences, without padding.
        longest: input tokens of the longest sequence.
        truncation: counts of removed tokens.
        class_counts: rows of each class; empty for "completion".
        warnings: named warnings for the caller to print.
    """

    rows: int
    tokens: int
    longest: int
    truncation: TruncationReport
    class_counts: tuple[int, ...] = ()
    warnings: tuple[DataWarning, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One row, tokenized.

    Attributes:
        example_id: position of the row in the file, from 0.
        line: line of the row, from 1.
        tokens: (N,) int32. The prompt ("labels", "candidates"), or prompt and completion up to the
            last scored token ("completion").
        places: (K,) int32. "completion": indices in `tokens` of the scored tokens, increasing and
            above 0. "pairs": the last tokens of both texts, which follow each other in `tokens`.
            Otherwise the one index in `tokens` whose prediction is the class.
        label: the class, or -1 for "completion" and "pairs".
    """

    example_id: int
    line: int
    tokens: Int32Array
    places: Int32Array
    label: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class ExampleSet:
    """The examples of one file.

    Attributes:
        kind: how all examples are scored.
        examples: the examples, in the order of the file.
        path: the file.
        sha256: SHA-256 of the file, for the identity of a run.
        max_seq: limit on the tokens of a sequence.
        pad_id: token that fills short sequences.
        label_words: the text of each class, in class order; empty for "completion".
        label_tokens: the tokens of each class; empty for "completion"; for "pairs" the numbers of
            an embedding.
        report: counts and warnings.
        reading: how the rows were read; None if the set was not made of rows.
        held_out: rows of the file that are held out of this set; see `hold_out`.
    """

    kind: Kind
    examples: tuple[Example, ...]
    path: Path
    sha256: str
    max_seq: int
    pad_id: int
    report: LoadReport
    label_words: tuple[str, ...] = ()
    label_tokens: tuple[tuple[int, ...], ...] = field(default=())
    reading: Reading | None = None
    held_out: int = 0

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        """The examples in the order of the file."""
        return iter(self.examples)

    @property
    def warnings(self) -> tuple[DataWarning, ...]:
        """The warnings of the report."""
        return self.report.warnings

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for "completion"."""
        return len(self.label_words)

    @property
    def sequences_per_example(self) -> int:
        """Rows of the model that one example takes."""
        if self.kind == "pairs":
            return 2
        return len(self.label_tokens) if self.kind == "candidates" else 1

    @property
    def classified(self) -> bool:
        """Has every example a class?"""
        return self.kind in ("labels", "candidates")

    def plus(self, more: Sequence[Example]) -> ExampleSet:
        """Append examples and continue the numbering; path, digest and report stay the same."""
        first = len(self.examples)
        numbered = tuple(
            replace(example, example_id=number, line=number + 1)
            for number, example in enumerate(more, first)
        )
        return replace(self, examples=self.examples + numbered)

    def first(self, count: int) -> ExampleSet:
        """Return a set of the first `count` examples."""
        return self if count >= len(self) else replace(self, examples=self.examples[:count])

    def chosen(self, indices: Sequence[int]) -> ExampleSet:
        """Return a set of the examples with these indices, numbered anew from 0."""
        examples = (self.examples[index] for index in indices)
        numbered = tuple(replace(one, example_id=number) for number, one in enumerate(examples))
        return replace(self, examples=numbered)

    def tokens_sha256(self) -> str:
        """Return the SHA-256 of the token ids, scored places and classes.

        It depends on the file, the template, the labels, the tokenizer and `max_seq`.
        """
        words = [list(tokens) for tokens in self.label_tokens]
        digest = hashlib.sha256(json.dumps([self.kind, words]).encode())
        for example in self.examples:
            sizes = (example.tokens.size, example.places.size, example.label)
            digest.update(np.array(sizes, "<i8").tobytes())
            digest.update(example.tokens.astype("<i4").tobytes())
            digest.update(example.places.astype("<i4").tobytes())
        return digest.hexdigest()

    def lengths(self) -> Int32Array:
        """Input tokens of each example's longest sequence, (len(self),) int32."""
        return np.array([input_length(e, self.kind, self.label_tokens) for e in self], np.int32)

    def sequence_lengths(self) -> Int32Array:
        """Input tokens of each sequence, in the order of `Batch.row_keys`, int32."""
        if self.kind == "pairs":
            ends = np.array([example.places for example in self], np.int32).reshape(-1, 2)
            return np.diff(ends, axis=1, prepend=-1).reshape(-1)
        if self.kind != "candidates":
            return self.lengths()
        prompts = np.array([example.tokens.size for example in self], np.int32)
        words = np.array([len(tokens) - 1 for tokens in self.label_tokens], np.int32)
        return (prompts[:, None] + words).reshape(-1)


def input_length(example: Example, kind: Kind, label_tokens: tuple[tuple[int, ...], ...]) -> int:
    """Count the input tokens of an example's longest sequence.

    The last target is not an input: the model predicts it.
    """
    size = int(example.tokens.size)
    if kind == "pairs":
        first = int(example.places[0]) + 1
        return max(first, size - first)
    if kind == "candidates":
        return size + max(map(len, label_tokens)) - 1
    return size - 1 if kind == "completion" else size
