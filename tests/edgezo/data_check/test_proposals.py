"""Templates and label words."""

from __future__ import annotations

from typing import Any

from edgezo.data_check.proposals import (
    ENDINGS,
    WORDS_OF_TWO,
    has_numbered_classes,
    label_sets,
    proposals,
    text_fields,
)
from tests.edgezo.data_check.test_findings import split


def labelled(*labels: Any) -> Any:
    rows = [{"id": at, "sentence": f"a long sentence {at}", "label": label}
            for at, label in enumerate(labels)]  # fmt: skip
    return split("train", rows)


def test_numbered_classes_get_words() -> None:
    train = labelled(0, 1, 0, 1)
    assert label_sets(train) == list(WORDS_OF_TWO)
    assert has_numbered_classes(train)
    assert label_sets(labelled(0, 1, 2, 0)) == [(" A", " B", " C")]
    assert label_sets(labelled("0", "5")) == [(" A", " B", " C", " D", " E", " F")]


def test_named_classes_are_their_own_words() -> None:
    train = labelled("positive", "negative", "positive")
    assert label_sets(train) == [(" negative", " positive")]
    assert not has_numbered_classes(train)


def test_every_pair_of_words_and_ending() -> None:
    found = proposals(labelled(0, 1, 0, 1))
    assert len(found) == len(ENDINGS) * len(WORDS_OF_TWO)
    assert found[0].template == "{sentence} It was"
    given = proposals(labelled(0, 1), "{sentence}:", [" x", " y"])
    assert [(own.template, own.labels) for own in given] == [("{sentence}:", (" x", " y"))]


def test_fields_of_the_prompt() -> None:
    rows = [{"code": "ab", "premise": "a long premise", "hypothesis": "a long hypothesis",
             "{x}": "braces are no field", "label": 0}]  # fmt: skip
    assert text_fields(split("train", rows)) == ("premise", "hypothesis")
    assert text_fields(split("train", [{"code": "ab", "c": "a", "label": 0}])) == ("code",)
    assert text_fields(split("train", [{"n": 1}])) == ()
    assert proposals(split("train", [{"n": 1, "label": 0}, {"n": 2, "label": 1}])) == []
