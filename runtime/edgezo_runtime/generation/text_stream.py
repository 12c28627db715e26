"""Decoding of generated tokens as they come, in whole characters and without stop texts."""

from __future__ import annotations

from collections.abc import Sequence

from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import UsageError

_BROKEN = "\ufffd"
_CONTEXT = 6
_LONGEST_CHARACTER = 8
"""Tokens after which bytes that are no character yet never become one; UTF-8 has up to 4."""


class TextStream:
    """Turns tokens into text one by one; the new text of a token is a delta.

    The text of a token depends on those before it: spaces between words, characters of several
    tokens. So a few tokens are decoded with and without the new one, and the difference is its
    delta.

    Args:
        tokenizer: the tokenizer.
        before: tokens that the text continues from.
        stop: texts that end the stream; they are omitted from it.

    Attributes:
        text: all deltas so far.
        stopped: has the text reached one of `stop`?

    Raises:
        UsageError: one of `stop` is empty.
    """

    def __init__(
        self, tokenizer: TextTokenizer, before: Sequence[int] = (), stop: Sequence[str] = ()
    ) -> None:
        if "" in stop:
            raise UsageError("a stop text is empty")
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._tokens = list(before[-_CONTEXT:])
        self._start, self._read = 0, len(self._tokens)
        self._held = ""
        self.text = ""
        self.stopped = False

    @property
    def position(self) -> int:
        """Characters so far, those that are held back included."""
        return len(self.text) + len(self._held)

    def add(self, token: int) -> str:
        """Take the next token.

        Returns:
            The delta that is certain by now, maybe empty.
        """
        self._tokens.append(token)
        return self._hand_out(self._decoded(last=False), last=False)

    def end(self) -> str:
        """End the text; returns the delta that was held back."""
        return self._hand_out(self._decoded(last=True), last=True)

    def _decoded(self, *, last: bool) -> str:
        """Text of the tokens that have become whole characters."""
        if self._read == len(self._tokens):
            return ""
        known = self._tokenizer.decode(self._tokens[self._start : self._read])
        text = self._tokenizer.decode(self._tokens[self._start :])
        waited = len(self._tokens) - self._read
        if text.endswith(_BROKEN) and waited < _LONGEST_CHARACTER and not last:
            return ""
        if len(text) > len(known):  # a token without text, such as a special one, is no context
            self._start = self._read
        self._read = len(self._tokens)
        return text[len(known) :]

    def _hand_out(self, text: str, *, last: bool) -> str:
        """Release the text that neither ends it nor may become the beginning of such an end."""
        if self.stopped:
            return ""
        held = self._held + text
        ends = [place for place in map(held.find, self._stop) if place >= 0]
        if ends:
            self.stopped = True
            held, kept = held[: min(ends)], 0
        else:
            kept = 0 if last else max((_overlap(held, stop) for stop in self._stop), default=0)
        shown, self._held = held[: len(held) - kept], held[len(held) - kept :]
        self.text += shown
        return shown


def _overlap(text: str, stop: str) -> int:
    """Count the characters at the end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
