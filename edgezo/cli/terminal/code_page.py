"""What a stream can write: code pages of terminals lack characters."""

from __future__ import annotations

import sys
from typing import TextIO


def can_write(text: str, stream: TextIO | None = None) -> bool:
    """Does the encoding of a stream have all characters of a text?

    Args:
        text: the characters.
        stream: the output; None is stdout.
    """
    encoding = getattr(stream if stream is not None else sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
