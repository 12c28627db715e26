"""A text whose keys and values stay in memory, for a prompt that begins as it does.

A conversation is such a prompt: each turn begins with all turns before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgezo_runtime.generation.device_cache import DeviceKvCache
from edgezo_runtime.generation.kv_cache import KvCache


class KeptText:
    """The tokens and the keys and values of the last text; empty at first.

    Attributes:
        tokens: those that have been read, without the virtual tokens of a scheme.
    Memory:
        The keys and values of the text, with their room, until the next text begins otherwise.
    """

    tokens: tuple[int, ...]
    _states: KvCache | DeviceKvCache | None
    _made_by: tuple[object, ...]
    _most: int
    _active: int

    def __init__(self) -> None:
        self.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values."""
        return 0 if self._states is None else self._states.nbytes

    def clear(self) -> None:
        """Forget the text."""
        self.tokens, self._states = (), None
        self._made_by, self._most, self._active = (), 0, 0

    def take(
        self, prompt: Sequence[int], made_by: tuple[object, ...], most: int, *, answers: bool
    ) -> tuple[KvCache | DeviceKvCache, int] | None:
        """Hand out the states that a prompt can begin with; the text itself is forgotten.

        Args:
            prompt: tokens.
            made_by: objects that states depend on; the very same ones have made those of the text.
            most: tokens of the longest row.
            answers: do adapters act on answers only? Then a prompt takes no states of an answer.
        Returns:
            The states, and how many tokens of the prompt they have; at least one is left to read,
            because logits follow from it. None if they have none.
        """
        states, tokens = self._states, self.tokens
        alike = len(made_by) == len(self._made_by) and all(
            own is other for own, other in zip(made_by, self._made_by, strict=True)
        )
        useful = alike and most == self._most
        end = min(len(tokens), len(prompt) - 1, *([self._active] if answers else []))
        self.clear()
        if states is None or not useful:
            return None
        same = next((n for n in range(end) if tokens[n] != prompt[n]), end)
        return (states, same) if same > 0 else None

    def put(
        self,
        tokens: Sequence[int],
        states: KvCache | DeviceKvCache,
        made_by: tuple[object, ...],
        most: int,
        active: int,
    ) -> None:
        """Keep a text.

        Args:
            tokens: those whose states there are.
            states: of one row.
            made_by: objects that they depend on.
            most: tokens of the longest row.
            active: the first token of the answer, on which adapters of answers act.
        """
        self.tokens, self._states = tuple(tokens), states
        self._made_by, self._most, self._active = made_by, most, active
