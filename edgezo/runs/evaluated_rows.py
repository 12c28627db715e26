"""Results of single rows, for reports: rows.json in the run's folder.

For each set that was evaluated the file has a confusion matrix and the rows with the largest
losses. It has their tokens, not their text: a tokenizer in memory would count against the budget of
the run, and whoever reads the file has the bundle's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.evaluation.evaluate import Evaluation
from edgezo_runtime.journal.versioned_file import read_versioned, write_versioned

VERSION = 1

WORST_ROWS = 10
"""Rows with the largest losses that are kept of each evaluation."""

SAMPLES = 3
"""Rows without classes that are kept besides, the first ones: prompts for sample texts."""

MOST_TOKENS = 160
"""Tokens that are kept of such a row: the last ones."""

MOST_CLASSES = 64
"""Classes of the largest confusion matrix that is kept."""


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row that is kept for reports.

    Attributes:
        line: line of the row in its file, from 1.
        loss: nats.
        tokens: the last tokens of the row.
        answer: index in `tokens` of the first token of the answer; their number if the answer is a
            class, which follows.
        cut: tokens of the row before these.
        label: the right class; -1 where there are no classes.
        predicted: the class that the model chose; -1 where there are no classes.
    """

    line: int
    loss: float
    tokens: tuple[int, ...]
    answer: int
    cut: int = 0
    label: int = -1
    predicted: int = -1


@dataclass(frozen=True, slots=True)
class RowResults:
    """Results of the rows of one set, with the adapter after some step.

    Attributes:
        step: steps that the adapter had taken.
        rows: number of rows.
        loss: mean over the rows, nats.
        confusion: rows by right class, then by predicted class; empty where there are no classes,
            or more than `MOST_CLASSES`.
        worst: the rows with the largest losses, the largest first.
        samples: the first rows, where there are no classes.
    """

    step: int
    rows: int
    loss: float
    confusion: tuple[tuple[int, ...], ...] = ()
    worst: tuple[KeptRow, ...] = ()
    samples: tuple[KeptRow, ...] = ()

    @classmethod
    def of(cls, step: int, examples: ExampleSet, found: Evaluation) -> RowResults:
        """The results of an evaluation."""
        order = np.argsort(-found.losses, kind="stable")[:WORST_ROWS]
        worst = tuple(_kept_row(examples.examples[index], int(index), found) for index in order)
        samples = examples.examples[: 0 if found.predictions.size else SAMPLES]
        return cls(
            step=step,
            rows=found.rows,
            loss=found.loss,
            confusion=_confusion(examples, found),
            worst=worst,
            samples=tuple(_kept_row(own, at, found) for at, own in enumerate(samples)),
        )


@dataclass(frozen=True, slots=True)
class EvaluatedRows:
    """What rows.json holds.

    Attributes:
        sets: by name of the set: "valid" or "test"; then "before" (the initial adapter) or "after"
            (the adapter that the run hands out).
        version: of the format.
    """

    sets: dict[str, dict[str, RowResults]] = field(default_factory=dict)
    version: int = VERSION

    def plus(self, split: str, when: str, found: RowResults) -> EvaluatedRows:
        """The same with other results of a set."""
        own = {**self.sets.get(split, {}), when: found}
        return replace(self, sets={**self.sets, split: own})

    def until(self, step: int) -> EvaluatedRows:
        """The same without results of later steps, which a lost journal can leave."""
        kept = {split: _until(own, step) for split, own in self.sets.items()}
        return replace(self, sets={split: own for split, own in kept.items() if own})

    def write(self, path: Path) -> None:
        """Write the file, atomically.

        Raises:
            RunFileError: the disk did not take it; an older file is as it was.
        """
        write_versioned(path, self)


def read_rows(path: Path) -> EvaluatedRows:
    """Read the results of single rows; empty if there is no such file.

    Raises:
        RunFileError: the file is damaged, or of another version.
    """
    remedy = "remove it; reports of the run then lack single rows"
    what = "the rows of a run"
    found = read_versioned(path, EvaluatedRows, VERSION, what=what, remedy=remedy)
    if found is None:
        return EvaluatedRows()
    if not all(map(_is_sound, (own for sets in found.sets.values() for own in sets.values()))):
        raise RunFileError(f"{path}: has results that no run writes; {remedy}")
    return found


def _is_sound(found: RowResults) -> bool:
    """Are the results such as `RowResults.of` makes?"""
    counts = found.confusion
    square = all(len(row) == len(counts) for row in counts) and len(counts) <= MOST_CLASSES
    numbers = [found.step, found.rows, *(cell for row in counts for cell in row)]
    kept = [*found.worst, *found.samples]
    numbers += [value for row in kept for value in (row.line, row.answer, row.cut)]
    losses = [found.loss, *(row.loss for row in kept)]
    within = all(0 <= value < 2**53 for value in numbers)
    return square and within and all(map(math.isfinite, losses))


def _until(own: Mapping[str, RowResults], step: int) -> dict[str, RowResults]:
    return {when: found for when, found in own.items() if found.step <= step}


def _confusion(examples: ExampleSet, found: Evaluation) -> tuple[tuple[int, ...], ...]:
    """Counts by right and predicted class, (C, C)."""
    count = examples.num_classes
    if not found.predictions.size or not 0 < count <= MOST_CLASSES:
        return ()
    counts = np.zeros((count, count), np.int64)
    labels = np.array([example.label for example in examples], np.int64)
    np.add.at(counts, (labels, found.predictions), 1)
    return tuple(tuple(map(int, row)) for row in counts)


def _kept_row(example: Example, index: int, found: Evaluation) -> KeptRow:
    """A row; its tokens begin late enough to show where the answer begins."""
    size, first = int(example.tokens.size), _answer(example)
    begin = max(0, min(size, first + MOST_TOKENS // 2) - MOST_TOKENS)
    tokens = example.tokens[begin : begin + MOST_TOKENS]
    return KeptRow(
        line=example.line,
        loss=float(found.losses[index]),
        tokens=tuple(map(int, tokens)),
        answer=min(first - begin, len(tokens)),
        cut=begin,
        label=example.label,
        predicted=int(found.predictions[index]) if found.predictions.size else -1,
    )


def _answer(example: Example) -> int:
    """Index of the first token of the answer; the number of tokens where a class follows."""
    return int(example.places[0]) if example.label < 0 else int(example.tokens.size)
