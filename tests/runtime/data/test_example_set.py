"""Sets of examples: growing, lengths, and the digest that tells sets apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.data.example_set import (
    DataWarning,
    Example,
    ExampleSet,
    TruncationReport,
    input_length,
)
from tests.runtime.tiny_sets import random_set


def changed(examples: ExampleSet, **given: object) -> ExampleSet:
    """The set with its first example changed."""
    first, *rest = examples.examples
    other = dataclasses.replace(first, **given)  # type: ignore[arg-type]
    return dataclasses.replace(examples, examples=(other, *rest))


def test_truncation_counts_rows_that_lost_tokens() -> None:
    report = TruncationReport()
    for prompt, completion in ((3, 0), (0, 0), (0, 2), (1, 1)):
        report = report.plus(prompt, completion)
    assert report == TruncationReport(
        rows=3, prompt_tokens=4, completion_tokens=3, prompt_rows=2, completion_rows=2
    )
    assert report.tokens == 7
    assert TruncationReport().plus(0) == TruncationReport()


@pytest.mark.parametrize(
    ("kind", "lengths", "sequences"),
    [
        ("labels", [4, 7], [4, 7]),
        ("completion", [4, 7], [4, 7]),
        # words of one, two and three tokens; the last token of each is predicted, not read
        ("candidates", [6, 9], [4, 5, 6, 7, 8, 9]),
    ],
)
def test_lengths_are_those_of_the_input(
    kind: str, lengths: list[int], sequences: list[int]
) -> None:
    examples = random_set(kind, (4, 7), 0)  # type: ignore[arg-type]
    assert examples.lengths().tolist() == lengths
    assert examples.sequence_lengths().tolist() == sequences
    assert len(sequences) == len(examples) * examples.sequences_per_example
    first = examples.examples[0]
    assert input_length(first, examples.kind, examples.label_tokens) == lengths[0]


def test_examples_that_are_added_are_numbered_on() -> None:
    own, more = random_set("labels", (4, 5), 0), random_set("labels", (6, 7, 8), 0, seed=1)
    grown = own.plus(more.examples)
    assert [e.example_id for e in grown] == [0, 1, 2, 3, 4]
    assert [e.line for e in grown] == [1, 2, 3, 4, 5]
    assert [e.tokens.size for e in grown] == [4, 5, 6, 7, 8]
    assert (grown.path, grown.sha256, grown.report) == (own.path, own.sha256, own.report)
    assert len(own) == 2


def test_the_first_of_a_set() -> None:
    examples = random_set("labels", (4, 5, 6), 0)
    assert [e.example_id for e in examples.first(2)] == [0, 1]
    assert examples.first(3) is examples.first(9) is examples


def test_the_digest_tells_tokens_places_and_classes_apart() -> None:
    examples = random_set("labels", (4, 5), 0)
    first = examples.examples[0]
    others = [
        changed(examples, tokens=first.tokens + np.int32(1)),
        changed(examples, places=first.places - np.int32(1)),
        changed(examples, label=2),
        dataclasses.replace(examples, kind="candidates"),
        dataclasses.replace(examples, label_tokens=((5,), (6,), (8,))),
        examples.first(1),
        random_set("completion", (4, 5), 0),
    ]
    digests = {own.tokens_sha256() for own in (examples, *others)}
    assert len(digests) == 8
    same = dataclasses.replace(examples, sha256="other", max_seq=9, pad_id=3)
    assert same.tokens_sha256() == examples.tokens_sha256()


def test_a_boundary_between_examples_counts() -> None:
    """The same tokens in other rows are another set."""
    row = random_set("completion", (7,), 0).examples[0]
    place = np.array([1], np.int32)
    halves = [
        Example(0, 1, row.tokens[:4], place),
        Example(1, 2, row.tokens[4:], place),
    ]
    parts = [
        Example(0, 1, row.tokens[:3], place),
        Example(1, 2, row.tokens[3:], place),
    ]
    base = random_set("completion", (7,), 0)
    first, second = (
        dataclasses.replace(base, examples=tuple(own)).tokens_sha256() for own in (halves, parts)
    )
    assert first != second


def test_warnings_and_classes_come_from_the_report_and_the_words() -> None:
    examples = random_set("labels", (4, 5), 0)
    warning = DataWarning("truncated", "1 of 2 rows", 1)
    report = dataclasses.replace(examples.report, warnings=(warning,))
    assert dataclasses.replace(examples, report=report).warnings == (warning,)
    assert examples.num_classes == 3
    assert random_set("completion", (4,), 0).num_classes == 0
