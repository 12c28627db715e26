"""Templates and label words that suit rows with classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgezo.data_check.split_summary import SplitSummary
from edgezo_runtime.data.label_words import LABEL_FIELD

WORDS_OF_TWO = (
    (" terrible", " great"),
    (" negative", " positive"),
    (" no", " yes"),
    (" wrong", " right"),
)
"""Label words for two classes that have numbers only, in class order."""

ENDINGS = (" It was", "\nAnswer:", "\nLabel:", " This is about")
"""Ends of prompts, before the label word."""

_LEAST_LENGTH = 12
"""Mean characters of a field that is taken for a text."""

_MOST_FIELDS = 3
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A way to ask for the class of a row.

    Attributes:
        template: prompt of a row.
        labels: label words, in class order.
    """

    template: str
    labels: tuple[str, ...]


def text_fields(train: SplitSummary) -> tuple[str, ...]:
    """The fields of a prompt: texts of some length, else the longest one."""
    texts = {
        name: own.characters / own.texts
        for name, own in train.fields.items()
        if own.texts == own.rows > 0 and name != LABEL_FIELD
        and not set(name) & set("{}.[]!:")
    }  # fmt: skip
    long = tuple(name for name, mean in texts.items() if mean >= _LEAST_LENGTH)
    if not long and texts:
        long = (max(texts, key=lambda name: texts[name]),)
    return long[:_MOST_FIELDS]


def label_sets(train: SplitSummary) -> list[tuple[str, ...]]:
    """Label words to try: the names of the classes, or words for numbered ones."""
    values = sorted(train.labels or ())
    if not all(_DIGITS.fullmatch(value) for value in values):
        return [tuple(f" {value.strip()}" for value in values)]
    count = 1 + max(map(int, values), default=0)
    if count == 2:
        return list(WORDS_OF_TWO)
    letters = [chr(ord("A") + index) for index in range(26)]
    names = letters if count <= len(letters) else [str(index) for index in range(count)]
    return [tuple(f" {name}" for name in names[:count])] if count <= 64 else []


def proposals(
    train: SplitSummary, template: str | None = None, labels: Sequence[str] = ()
) -> list[Proposal]:
    """Ways to ask for classes; the first one is what is taken without a model.

    Args:
        train: the rows.
        template: is given; None proposes some.
        labels: label words that are given; () proposes some.
    """
    fields = text_fields(train)
    body = " ".join(f"{{{name}}}" for name in fields)
    templates = [template] if template is not None else [body + end for end in ENDINGS if body]
    words = [tuple(labels)] if labels else label_sets(train)
    return [Proposal(text, own) for own in words for text in templates]


def has_numbered_classes(train: SplitSummary) -> bool:
    """Have the classes numbers only, so that their words are a guess?"""
    return bool(train.labels) and all(map(_DIGITS.fullmatch, train.labels or ()))
