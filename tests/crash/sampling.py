"""Which of many like cases a test tries: a sample, or with EDGEZO_EVERY=1 (`make crash`) all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def every(default: int) -> int:
    """One case in so many is tried: what EDGEZO_EVERY says, or `default`."""
    return int(os.environ.get("EDGEZO_EVERY", default))


def sample(cases: Iterable[T], default: int) -> list[T]:
    """One in `every(default)` cases, evenly spread, with the first and the last."""
    found = list(cases)
    chosen = found[:: every(default)]
    return chosen if chosen[-1:] == found[-1:] else [*chosen, found[-1]]
