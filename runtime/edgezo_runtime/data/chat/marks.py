"""Marks: single characters that occur in no text, put into messages to find them again.

The positions of texts in a rendered conversation come from rendering, never from a search for the
texts: they may occur elsewhere. A rendering with marks counts only if it is the rendering without
them as soon as the marks are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
_ANY_PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")


def unused_marks(texts: Sequence[str]) -> Iterator[str]:
    """Yield private-use characters that occur in none of the texts."""
    used = {ord(char) for text in texts for char in _ANY_PRIVATE.findall(text)}
    return (chr(code) for code in chain(*_PRIVATE) if code not in used)


def take_out(text: str, marks: Sequence[str]) -> tuple[str, Mapping[str, list[int]]]:
    """Take marks out of a text.

    Returns:
        The text without them, and the positions in it at which each mark was.
    """
    if not marks:
        return text, {}
    parts = re.split(f"([{''.join(marks)}])", text)
    found: dict[str, list[int]] = {}
    position = 0
    for plain, mark in zip(parts[::2], parts[1::2], strict=False):
        position += len(plain)
        found.setdefault(mark, []).append(position)
    return "".join(parts[::2]), found
