"""Log-probabilities of an answer's tokens, and of the likeliest ones at each place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgezo.serve.spelling import Spelled, Spelling
    from edgezo_runtime.generation.text_reader import Text

LEAST = -9999.0
"""Stands for every lower log-probability, as in the API; JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that may follow.

    Attributes:
        spelled: the token.
        logprob: its log-probability.
    """

    spelled: Spelled
    logprob: float


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of an answer.

    Attributes:
        chosen: the token.
        top: the likeliest tokens at its place, the likeliest first.
        start: characters of the answer before it.
    """

    chosen: Candidate
    top: tuple[Candidate, ...]
    start: int


def logprobs(
    logits: npt.NDArray[np.float32], token: int, top: int
) -> tuple[float, list[tuple[int, float]]]:
    """The log-probability of a token, and the likeliest tokens with theirs.

    They are those of softmax(logits), before temperature, top_k and top_p.

    Args:
        logits: (V,).
        token: the one that was chosen.
        top: number of likeliest tokens.
    Memory:
        Two arrays of float32 of the vocabulary.
    """
    highest = logits.max()
    total = float(highest) + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
    count = min(top, len(logits))
    order: list[int] = []
    if count:
        least = np.partition(logits, len(logits) - count)[len(logits) - count]
        found = np.flatnonzero(logits >= least)  # more than `count` where some are equal
        order = found[np.argsort(-logits[found], kind="stable")][:count].tolist()
    return _score(logits, token, total), [(own, _score(logits, own, total)) for own in order]


def _score(logits: npt.NDArray[np.float32], token: int, total: float) -> float:
    return max(LEAST, float(logits[token]) - total)


class TokenScores:
    """Scores the tokens of one answer.

    Args:
        spelling: spells tokens.
        top: number of likeliest tokens at each place.
    """

    def __init__(self, spelling: Spelling, top: int) -> None:
        self._spelling = spelling
        self._top = top
        self._start = 0
        self._waiting: list[ScoredToken] = []

    def look(self, text: int, place: int, token: int, logits: npt.NDArray[np.float32]) -> None:
        """Score a token; see `generator.Look`."""
        own, top = logprobs(logits, token, self._top)
        candidates = tuple(self._candidate(*pair) for pair in top)
        self._waiting.append(ScoredToken(self._candidate(token, own), candidates, self._start))

    def ready(self, text: Text) -> tuple[ScoredToken, ...]:
        """Hand out the tokens whose text has been shown, after each token.

        An end token has none; nor have the tokens of a stop text.

        Args:
            text: the answer.
        """
        self._start = text.stream.position
        if text.finish == "end":
            self._waiting.pop()
        shown = len(text.stream.text)
        count = sum(token.start < shown for token in self._waiting)
        if text.finish in ("end", "length"):
            count = len(self._waiting)
        found, self._waiting = self._waiting[:count], self._waiting[count:]
        return tuple(found)

    def _candidate(self, token: int, logprob: float) -> Candidate:
        return Candidate(self._spelling.of(token), logprob)
