"""The allowance of one rendering: limits on steps, text and time, and the cost of values."""

from __future__ import annotations

import math
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

MOST_STEPS = 300_000
"""Loop iterations, calls and filters per rendering."""

MOST_CHARACTERS = 64 << 20
"""Characters that one rendering may make, plus `_OWN_SHARE` times the characters it is given."""

MOST_SECONDS = 10.0
"""Time of one rendering."""

ITEM = 8
"""Cost of an item of a list in characters: the size of a pointer."""

OBJECT = 64
"""Cost in characters of an item that is created for a list."""

VIEWS = (KeysView, ValuesView, ItemsView)
LISTS = (list, tuple, set, frozenset, *VIEWS)

_OWN_SHARE = 32
_SHOWN = 32
_LOOKS = 1 << 12


class Allowance:
    """Counts what a rendering may still do. It serves one rendering at a time."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, given: int) -> None:
        """Begin a rendering that is given so many characters."""
        self._steps = MOST_STEPS
        self._characters = MOST_CHARACTERS + _OWN_SHARE * given
        self._end = time.monotonic() + MOST_SECONDS

    def step(self) -> None:
        """Count a loop iteration, a call or a filter.

        Raises:
            SecurityError: the rendering has used all its steps or its time.
        """
        self._steps -= 1
        if self._steps < 0:
            raise SecurityError(f"it takes more than {MOST_STEPS} steps")
        self.make(0)

    def make(self, characters: float) -> None:
        """Count characters that are about to be made or read.

        Raises:
            SecurityError: the rendering has used all its characters or its time.
        """
        self._characters -= math.ceil(characters)
        if self._characters < 0:
            raise SecurityError("it makes too much text")
        if time.monotonic() > self._end:
            raise SecurityError(f"it takes more than {MOST_SECONDS:g} seconds")

    def text(self, value: Any, indent: int = 0) -> int:
        """Return an upper bound of the characters of a value as text."""
        if isinstance(value, str):
            return len(value)
        return self.shown(value, indent)

    def shown(self, value: Any, indent: int = 0) -> int:
        """Return an upper bound of the characters of a value's repr or JSON.

        `indent` counts per level. A list that occurs several times in a value counts each time.
        """
        total = 0
        for item, depth in self._walk(value):
            total += _SHOWN + indent * depth
            if isinstance(item, str):
                # A quote or a backslash becomes two characters, an unprintable character up to ten.
                total += len(item) * (2 if item.isprintable() else 10)
            elif isinstance(item, int):
                total += item.bit_length() // 3
            if total > self._characters:
                break
        return total

    def held(self, value: Any) -> int:
        """Return the cost of iterating over, comparing or hashing a value.

        Text costs little, since C code compares it.
        """
        if isinstance(value, str):
            return len(value) >> 6
        if not isinstance(value, LISTS) and not isinstance(value, Mapping):
            return 0
        total = 0
        for item, _ in self._walk(value):
            total += _SHOWN + (len(item) >> 6 if isinstance(item, str) else 0)
            if total > self._characters:
                break
        return total

    def taken(self, value: Any) -> Any:
        """Return a list of an iterator's, range's or view's items; other values unchanged."""
        if isinstance(value, (Iterator, range, *VIEWS)):
            return list(self.counted(value))
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield the values as long as the allowance lasts."""
        for value in values:
            self.make(OBJECT)
            yield value

    def _walk(self, value: Any) -> Iterator[tuple[Any, int]]:
        """Yield a value and all values inside it, each with its depth."""
        levels: list[Iterator[Any]] = [iter((value,))]
        looked = 0
        while levels:
            for item in levels[-1]:
                looked += 1
                if looked % _LOOKS == 0:
                    self.make(0)
                yield item, len(levels) - 1
                if isinstance(item, Namespace):
                    item = item._Namespace__attrs
                if isinstance(item, Mapping):
                    levels.append(part for pair in item.items() for part in pair)
                    break
                if isinstance(item, LISTS):
                    levels.append(iter(item))
                    break
            else:
                levels.pop()


def size(value: Any) -> int:
    """Return the number of characters or items; 1 for other values."""
    return len(value) if isinstance(value, (str, range, Mapping, *LISTS)) else 1
