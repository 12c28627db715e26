"""Which of many like cases a test tries: a sample, or with EDGEZO_EVERY=1 (`make crash`) all."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def every(default: int) -> int:
    """One case in so many is tried: what EDGEZO_EVERY says, or `default`."""
    return int(os.environ.get("EDGEZO_EVERY", default))


def sample(cases: Iterable[T], default: int, kind: Callable[[T], object] | None = None) -> list[T]:
    """One in `default` cases of each kind, evenly spread, with the first and the last; in order.

    Args:
        cases: all there are.
        default: what EDGEZO_EVERY overrides.
        kind: of a case; None: all are of one kind.
    """
    found, step = list(cases), every(default)
    places: dict[object, list[int]] = defaultdict(list)
    for index, case in enumerate(found):
        places[None if kind is None else kind(case)].append(index)
    chosen = {index for of_kind in places.values() for index in [*of_kind[::step], of_kind[-1]]}
    return [found[index] for index in sorted(chosen)]
