"""Fields of rows that nothing reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from edgezo_runtime.data.example_set import DataWarning

_STRUCTURED = frozenset({"messages", "conversations", "tools", "history", "system"})
"""Fields that a template is not likely to leave out by intention."""

_NOTHING: tuple[object, ...] = (None, "", [], {})

_SHOWN = 8
"""Other fields that are named."""

_COUNTED = 1000
"""Names of other fields that are told apart: every row of a hostile file may have its own."""


class UnusedFields:
    """Counts the rows that have a field which is not read."""

    def __init__(self, known: frozenset[str], *, others: bool = True) -> None:
        """Know some fields.

        Args:
            known: fields that some kind of row reads, each of which has a warning of its own.
            others: count the other fields too; a function of the user's may read them.
        """
        self._known = known
        self._counts_others = others
        self._rows: Counter[tuple[str, str]] = Counter()
        self._others: Counter[str] = Counter()
        self._rows_with_others = 0

    def look(self, fields: Mapping[str, Any], used: frozenset[str], reader: str) -> None:
        """Look at a row; a field that is null or empty says nothing.

        Args:
            fields: fields of the row.
            used: those that are read, or reported elsewhere.
            reader: what reads them, for the message.
        """
        unused = [name for name in fields if name not in used and fields[name] not in _NOTHING]
        self._rows.update((name, reader) for name in unused if name in self._known)
        if not self._counts_others:
            return
        others = [name for name in unused if name not in self._known]
        self._rows_with_others += bool(others)
        if len(self._others) < _COUNTED:
            self._others.update(others)

    def warnings(self) -> Iterator[DataWarning]:
        """One warning per known field and reader, and one for all others."""
        for (name, reader), count in sorted(self._rows.items()):
            yield DataWarning(
                "unused-field",
                f"{count} rows have a field '{name}', which {reader} does not use",
                count,
            )
        if self._others:
            shown = [f"'{name:.40}'" for name, _ in self._others.most_common(_SHOWN)]
            more = len(self._others) - len(shown)
            yield DataWarning(
                "unused-fields",
                f"{self._rows_with_others} rows have fields that are not used: {', '.join(shown)}"
                f"{f' and {more} more' if more else ''}",
                self._rows_with_others,
            )


def unused_by_template(*, others: bool = True) -> UnusedFields:
    """Count fields where a template reads rows: only structured ones are known."""
    return UnusedFields(_STRUCTURED, others=others)
