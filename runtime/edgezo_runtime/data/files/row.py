"""One row of data: its fields, and its place for messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_ROW_BYTES = 16 * 2**20
"""Limit on a row in its file: a longer one is too long for any model."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        fields: its fields by name; an empty cell of a table is None.
        line: number of its line, or of the row where rows are no lines, from 1; the numbers of the
            rows of one source increase.
        where: "file, line n" or "file, row n", for messages.
    """

    fields: dict[str, Any]
    line: int
    where: str


@dataclass(frozen=True, slots=True)
class ForeignValue:
    """A value of a kind that JSON does not have, such as an image.

    Attributes:
        kind: what it is, for messages.
    """

    kind: str
