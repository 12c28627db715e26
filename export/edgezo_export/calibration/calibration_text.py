"""The rows that a model is calibrated with: text that comes with Python.

`pydoc_data.topics` is the reference of the language, about half a megabyte of English prose and
code. It is there without a download, it is the same for every model, and it is nobody's benchmark.
Text that the model itself writes is the alternative. It takes a pass over all weights for every
token, which is hours for a model that does not fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import MissingExtraError

TOKENS = 256
"""Tokens of a row, at most."""

MOST_ROWS = 512
"""More rows would read the same text again."""

_CHARACTERS = 16
"""Read for each token of a row; English text has about five."""


def calibration_rows(
    encode: Callable[[str], Sequence[int]], count: int, length: int, first: int | None = None
) -> npt.NDArray[np.int64]:
    """Cut rows out of the text, spread evenly over it.

    Args:
        encode: text to token ids, without special tokens.
        count: rows, at least 1.
        length: tokens of a row; fewer where the tokens are longer than `_CHARACTERS`.
        first: token that every row starts with; None for none.
    Returns:
        (count, length) int64.
    Raises:
        MissingExtraError: this Python comes without the text.
    """
    text = _text()
    own = length if first is None else length - 1
    read = _CHARACTERS * own
    span = min(len(text), max(0, len(text) - read) * count // max(1, count - 1))
    starts = [number * span // count for number in range(count)]  # the last row is a whole one
    rows = [list(encode(text[start : start + read]))[:own] for start in starts]
    shortest = min(len(row) for row in rows)
    cut = np.array([row[:shortest] for row in rows], np.int64)
    if first is None:
        return cut
    return np.concatenate([np.full((count, 1), first, np.int64), cut], axis=1)


def _text() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise MissingExtraError(
            "this Python comes without its documentation (pydoc_data), which 4-bit weights are "
            "calibrated with; use another Python, or export with `calibration_rows=0`"
        ) from error
    return "".join(topics[name] for name in sorted(topics))
