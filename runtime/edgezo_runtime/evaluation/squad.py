"""Scores of answers in words: exact match and F1, as SQuAD defines them.

References:
    Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250, section 6.1.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces."""
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer is one of the references once both are normalized, else 0."""
    return _best(_same, answer, references)


def f1(answer: str, references: Sequence[str]) -> float:
    """The largest F1 of the answer's words against a reference's.

    p = common / words of the answer,  r = common / words of the reference,  F1 = 2 p r / (p + r)

    Words are counted with repetition. Where either has none, it is 1 if both have none.
    """
    return _best(_overlap, answer, references)


def _best(score: Callable[[str, str], float], answer: str, references: Sequence[str]) -> float:
    own = normalize(answer)
    return max((score(own, normalize(reference)) for reference in references), default=0.0)


def _same(answer: str, reference: str) -> float:
    return float(answer == reference)


def _overlap(answer: str, reference: str) -> float:
    ours, theirs = answer.split(), reference.split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)
