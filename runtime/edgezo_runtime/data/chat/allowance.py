"""What a rendering of a chat template may still do, and how much there is to a value of one."""

from __future__ import annotations

import math
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

MOST_STEPS = 300_000
"""FairLock of loops, calls and filters of one rendering."""

MOST_CHARACTERS = 64 << 20
"""Characters that one rendering may make, besides `_OWN_SHARE` times those it is given."""

MOST_SECONDS = 10.0

ITEM = 8
"""Characters that an item of a list counts as: a pointer."""

OBJECT = 64
"""Characters that an item counts as which is made for the list."""

VIEWS = (KeysView, ValuesView, ItemsView)
LISTS = (list, tuple, set, frozenset, *VIEWS)

_OWN_SHARE = 32
_SHOWN = 32
_LOOKS = 1 << 12


class Allowance:
    """What a rendering may still do. One at a time."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, given: int) -> None:
        """A rendering begins, of so many characters."""
        self._steps = MOST_STEPS
        self._characters = MOST_CHARACTERS + _OWN_SHARE * given
        self._end = time.monotonic() + MOST_SECONDS

    def step(self) -> None:
        """A turn, a call or a filter.

        Raises:
            SecurityError: there were too many, or it took too long.
        """
        self._steps -= 1
        if self._steps < 0:
            raise SecurityError(f"it takes more than {MOST_STEPS} steps")
        self.make(0)

    def make(self, characters: float) -> None:
        """So many characters are about to be made, or looked at.

        Raises:
            SecurityError: they are too many, or it took too long.
        """
        self._characters -= math.ceil(characters)
        if self._characters < 0:
            raise SecurityError("it makes too much text")
        if time.monotonic() > self._end:
            raise SecurityError(f"it takes more than {MOST_SECONDS:g} seconds")

    def text(self, value: Any, indent: int = 0) -> int:
        """Characters of a value as text, or as JSON with this indent; never fewer."""
        if isinstance(value, str):
            return len(value)
        return self.shown(value, indent)

    def shown(self, value: Any, indent: int = 0) -> int:
        """Characters of a value as Python writes it; never fewer.

        Lists may hold a list many times, which counts each time.
        """
        total = 0
        for item, depth in self._walk(value):
            total += _SHOWN + indent * depth
            if isinstance(item, str):
                # A quote or a backslash becomes two characters, what does not print up to ten.
                total += len(item) * (2 if item.isprintable() else 10)
            elif isinstance(item, int):
                total += item.bit_length() // 3
            if total > self._characters:
                break
        return total

    def held(self, value: Any) -> int:
        """What it costs to go through a value, to compare or to hash it; next to nothing for
        text, which is compared by the machine."""
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
        """A list of what can be gone through once only, or has no list yet; else the value."""
        if isinstance(value, (Iterator, range, *VIEWS)):
            return list(self.counted(value))
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, while they may be made."""
        for value in values:
            self.make(OBJECT)
            yield value

    def _walk(self, value: Any) -> Iterator[tuple[Any, int]]:
        """A value, what it holds, and what that holds, with how deep it lies."""
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
    """Characters, or items; 1 of what has none."""
    return len(value) if isinstance(value, (str, range, Mapping, *LISTS)) else 1
