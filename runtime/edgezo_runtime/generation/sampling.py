"""The choice of the next token from logits: the likeliest one, or one drawn by a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DivergedError, UsageError
from edgezo_runtime.noise import derive_seed

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the likeliest token, the first of equals. Otherwise tokens are drawn
            with probabilities softmax(logits / temperature).
        top_k: draw from this many of the likeliest tokens; 0 for all.
        top_p: draw from the fewest likeliest tokens that have this probability together; 1 for all
            (Holtzman et al. 2020, arXiv:1904.09751). Applied to the tokens that `top_k` leaves.
        seed: of the draws. A token's draw is a hash of the seed, the number of its text and its
            place in it. It depends neither on other texts nor on the order of work.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UsageError: naming the setting.
        """
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"`temperature` {self.temperature}: must be 0 or more")
        if self.top_k < 0:
            raise UsageError(f"`top_k` {self.top_k}: must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"`top_p` {self.top_p}: must be above 0, and at most 1")
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"`seed` {self.seed}: must be 0 to 2**64 - 1")

    def choose(self, logits: npt.NDArray[np.float32], text: int, place: int) -> int:
        """Choose a token.

        Args:
            logits: (V,).
            text: number of the text.
            place: number of the token in it.
        Raises:
            DivergedError: a logit is not a number, or is infinite.
        """
        if np.isnan(logits).any() or np.isposinf(logits).any():
            raise DivergedError(f"text {text}, token {place}: a logit is not a number")
        if not self.temperature:
            return int(np.argmax(logits))
        tokens, shares = self.shares(logits)
        drawn = derive_seed(self.seed, f"token of text {text}", place) / 2**64
        sums = np.cumsum(shares)
        index = int(np.searchsorted(sums, drawn * sums[-1], side="right"))
        return int(tokens[min(index, len(tokens) - 1)])

    def shares(self, logits: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], Float64]:
        """The tokens that may be drawn, the likeliest first, and their probabilities.

        Args:
            logits: (V,).
        """
        order = np.argsort(-logits, kind="stable")
        if self.top_k:
            order = order[: self.top_k]
        z = logits[order].astype(np.float64)
        with np.errstate(over="ignore"):  # by the tiniest temperatures: minus infinity
            shares = np.exp((z - z[0]) / self.temperature)
        shares /= shares.sum()
        if self.top_p < 1:
            count = 1 + int(np.searchsorted(np.cumsum(shares), self.top_p, side="left"))
            order, shares = order[:count], shares[:count]
            shares = shares / shares.sum()
        return order, shares
