"""One pass over the rows of a split: fields, classes, and rows that come twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.label_words import LABEL_FIELD
from edgezo_runtime.data.row_content import recognise
from edgezo_runtime.errors import DataError

MOST_VALUES = 200
"""Different values of a field that are counted."""


@dataclass(slots=True)
class FieldSummary:
    """The values of one field.

    Attributes:
        rows: rows that have it, nulls excepted.
        texts: rows where it is a text.
        empty: rows where it is an empty text.
        characters: of all its texts.
        values: number of rows by value; None where there are more than `MOST_VALUES`.
    """

    rows: int = 0
    texts: int = 0
    empty: int = 0
    characters: int = 0
    values: Counter[str] | None = field(default_factory=Counter)

    def add(self, value: Any) -> None:
        """Count a value."""
        self.rows += 1
        if isinstance(value, str):
            self.texts += 1
            self.empty += not value.strip()
            self.characters += len(value)
        if self.values is not None:
            self.values[str(value)[:80]] += 1
            if len(self.values) > MOST_VALUES:
                self.values = None


@dataclass(slots=True)
class SplitSummary:
    """The rows of a split.

    Attributes:
        name: "train", "valid" or "test".
        rows: number of rows.
        kinds: number of rows by kind, for rows that need no template; "fields" for others.
        fields: what each field holds, in the order of the first row.
        contents: label of each content, by digest; the label is no part of a content.
        repeated: rows whose content came before.
        contradicting: those of them that have another label.
    """

    name: str
    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    fields: dict[str, FieldSummary] = field(default_factory=dict)
    contents: dict[bytes, str] = field(default_factory=dict)
    repeated: int = 0
    contradicting: int = 0

    @property
    def labels(self) -> Counter[str] | None:
        """Number of rows by label; None where rows have no labels, or too many of them."""
        found = self.fields.get(LABEL_FIELD)
        return None if found is None else found.values

    def shared_with(self, other: SplitSummary) -> int:
        """Contents that another split has too."""
        return len(self.contents.keys() & other.contents.keys())

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        try:
            self.kinds[recognise(row)] += 1
        except DataError:
            self.kinds["fields"] += 1
        for name, value in row.fields.items():
            if value is not None:
                self.fields.setdefault(name, FieldSummary()).add(value)
        label = str(row.fields.get(LABEL_FIELD))
        digest = content_digest(row)
        if digest in self.contents:
            self.repeated += 1
            self.contradicting += self.contents[digest] != label
        else:
            self.contents[digest] = label


def content_digest(row: Row) -> bytes:
    """Digest of what a row says, without its label; spaces around texts do not count."""
    content = {
        name: value.strip() if isinstance(value, str) else value
        for name, value in row.fields.items()
        if name != LABEL_FIELD and value is not None
    }
    text = json.dumps(content, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def summarize(name: str, rows: Iterable[Row]) -> SplitSummary:
    """Count the rows of a split.

    Memory:
        Some 150 bytes for each different row.
    """
    found = SplitSummary(name)
    for row in rows:
        found.add(row)
    return found
