"""The SQuAD metric against values worked out by hand."""

from __future__ import annotations

import pytest

from edgezo_runtime.evaluation.squad import exact_match, f1, normalize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("U.S.", "us"),
        ("Theatre", "theatre"),  # an article is a word of its own
        ("the", ""),
        ("  ", ""),
        ("Émile \u2014 Zola", "émile \u2014 zola"),  # ASCII punctuation only
    ],
)
def test_texts_are_normalized(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("answer", "references", "match", "overlap"),
    [
        ("1996", ["1996"], 1, 1),
        ("In 1996.", ["1996"], 0, 2 * 0.5 * 1 / 1.5),
        ("The Broncos", ["Denver Broncos", "broncos"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 * 1 * 0.5 / 1.5),
        ("to be or not to be", ["to be"], 0, 2 * (2 / 6) * 1 / (2 / 6 + 1)),
        ("the the the", ["a"], 1, 1),  # nothing is left of either
        ("the", ["Paris"], 0, 0),
        ("London", ["Paris"], 0, 0),
        ("a b b c", ["b b d"], 0, 2 * (2 / 3) * (2 / 3) / (4 / 3)),  # "a" is an article
        ("x", [], 0, 0),
    ],
)
def test_answers_are_scored_as_squad_does(answer, references, match, overlap):
    assert exact_match(answer, references) == match
    assert f1(answer, references) == pytest.approx(overlap)
