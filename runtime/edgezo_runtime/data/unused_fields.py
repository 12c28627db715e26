"""Fields that edgezo knows, in rows that are read without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from edgezo_runtime.data.example_set import DataWarning

_STRUCTURED = frozenset({"messages", "conversations", "tools", "history", "system"})
"""Fields that a template is not likely to leave out by intention."""


_NOTHING: tuple[object, ...] = (None, "", [], {})


class UnusedFields:
    """Counts the rows that have a field which is not read."""

    def __init__(self, known: frozenset[str]) -> None:
        """Know some fields.

        Args:
            known: fields that some kind of row reads.
        """
        self._known = known
        self._rows: Counter[tuple[str, str]] = Counter()

    def look(self, fields: Mapping[str, Any], used: frozenset[str], reader: str) -> None:
        """Look at a row; a field that is null or empty says nothing.

        Args:
            fields: fields of the row.
            used: those that are read.
            reader: what reads them, for the message.
        """
        for name in fields:
            if name in self._known and name not in used and fields[name] not in _NOTHING:
                self._rows[name, reader] += 1

    def warnings(self) -> Iterator[DataWarning]:
        """One warning per field and reader."""
        for (name, reader), count in sorted(self._rows.items()):
            yield DataWarning(
                "unused-field",
                f"{count} rows have a field '{name}', which {reader} does not use",
                count,
            )


def unused_by_template() -> UnusedFields:
    """Count the structured fields, which only rows without a template use."""
    return UnusedFields(_STRUCTURED)
