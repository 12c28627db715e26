"""docs/models.md says what the matrix tests."""

from __future__ import annotations

from pathlib import Path

from edgezo_runtime.data.text_pairs import PAIR_FIELDS
from tests.models.rows import ROWS, table

DOCUMENT = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_matrix():
    lines = [line for line in DOCUMENT.splitlines() if line.startswith("| `") or "---" in line]
    first = lines.index(next(line for line in lines if "`qwen3`" in line))
    assert lines[first : first + len(ROWS)] == table()[2:]


def test_the_fields_of_pairs_are_named():
    for first, second in PAIR_FIELDS:
        assert f"`{first}`/`{second}`" in DOCUMENT
