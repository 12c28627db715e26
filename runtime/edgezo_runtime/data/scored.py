"""A tokenized row, and the places in it that are scored."""

from __future__ import annotations

from dataclasses import dataclass

from edgezo_runtime.errors import DataError


class TooLongError(DataError):
    """A row that cannot be cut to `max_seq`; it is left out and counted."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One tokenized row.

    Attributes:
        tokens: prompt and completion.
        places: indices of the scored tokens, increasing and above 0.
        prompt_tokens_lost: tokens that truncation removed before the first scored token.
        completion_tokens_lost: tokens that truncation removed from there on.
    """

    tokens: list[int]
    places: list[int]
    prompt_tokens_lost: int = 0
    completion_tokens_lost: int = 0

    @property
    def shortened(self) -> bool:
        """True if truncation removed tokens."""
        return self.prompt_tokens_lost + self.completion_tokens_lost > 0

    def cut(self, max_seq: int) -> Scored:
        """Cut the end of the row, so that at most `max_seq` tokens are read.

        The last scored token is predicted and never read; what follows it is left out.

        Raises:
            TooLongError: no scored token is left.
        """
        last = self.places[-1]
        places = self.places
        if last > max_seq:
            places = [place for place in places if place <= max_seq]
        if not places:
            raise TooLongError(f"the answer begins behind token {max_seq}")
        left = places[-1] + 1
        lost = self.completion_tokens_lost + len(self.places) - len(places)
        return Scored(self.tokens[:left], places, self.prompt_tokens_lost, lost)
