"""What a data file becomes: token ids with the places that count, and a report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["labels", "candidates", "completion"]
"""How examples are scored.

"labels": every class is one token, compared at one place. "candidates": a class is a sequence of
tokens, scored by the mean of their log-probabilities. "completion": language modelling.
"""

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class DataWarning:
    """Something the user should know that does not stop the run.

    Attributes:
        name: stable, for tests and machines: "truncated", "label-boundary", ...
        message: for people, in the style of the errors.
        count: how many rows it concerns.
    """

    name: str
    message: str
    count: int


@dataclass(frozen=True, slots=True)
class TruncationReport:
    """What was cut to fit the longest sequence.

    Attributes:
        rows: rows that lost something.
        prompt_tokens: tokens lost before the first scored one.
        completion_tokens: tokens lost after it.
    """

    rows: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All tokens lost."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, prompt_tokens: int, completion_tokens: int = 0) -> TruncationReport:
        """Count one more row, unless nothing was cut from it."""
        if prompt_tokens == completion_tokens == 0:
            return self
        return TruncationReport(
            self.rows + 1,
            self.prompt_tokens + prompt_tokens,
            self.completion_tokens + completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Counts of one load.

    Attributes:
        rows: rows read.
        tokens: input tokens of all sequences, without padding.
        longest: input tokens of the longest sequence.
        truncation: what was cut.
        class_counts: rows of each class; empty for "completion".
        warnings: named warnings; the caller prints them.
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
        example_id: the row's place in the file, from 0.
        line: its line, from 1.
        tokens: (N,) int32. The prompt ("labels", "candidates"), or prompt and completion up to the
            last scored token ("completion").
        places: (K,) int32. "completion": indices in `tokens` of the scored tokens, increasing and
            above 0. Otherwise the one index in `tokens` whose prediction is the class.
        label: the class, or -1 for "completion".
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
        kind: how they are scored; the same for all.
        examples: in the order of the file.
        path: the file.
        sha256: of the file's bytes, for the identity of a run.
        max_seq: no sequence is longer.
        pad_id: fills short sequences.
        label_words: the text of each class, in class order; empty for "completion".
        label_tokens: the tokens of each class; empty for "completion".
        report: counts and warnings.
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
        return len(self.label_tokens) if self.kind == "candidates" else 1

    def plus(self, more: Sequence[Example]) -> ExampleSet:
        """This set with more examples behind its own, numbered on; path, digest and report stay."""
        first = len(self.examples)
        numbered = tuple(
            replace(example, example_id=number, line=number + 1)
            for number, example in enumerate(more, first)
        )
        return replace(self, examples=self.examples + numbered)

    def first(self, count: int) -> ExampleSet:
        """The first examples of this set."""
        return self if count >= len(self) else replace(self, examples=self.examples[:count])

    def tokens_sha256(self) -> str:
        """Of the token ids, the places that count and the classes: what template, labels, tokenizer
        and longest sequence made of the file."""
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
        if self.kind != "candidates":
            return self.lengths()
        prompts = np.array([example.tokens.size for example in self], np.int32)
        words = np.array([len(tokens) - 1 for tokens in self.label_tokens], np.int32)
        return (prompts[:, None] + words).reshape(-1)


def input_length(example: Example, kind: Kind, label_tokens: tuple[tuple[int, ...], ...]) -> int:
    """Input tokens of an example's longest sequence; a last target is predicted, not read."""
    size = int(example.tokens.size)
    if kind == "candidates":
        return size + max(map(len, label_tokens)) - 1
    return size - 1 if kind == "completion" else size
