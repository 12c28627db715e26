"""What rows say, by their fields."""

from __future__ import annotations

import pytest

from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.row_content import recognise
from edgezo_runtime.errors import DataError


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"messages": [], "text": ""}, "messages"),
        ({"prompt": "", "completion": ""}, "prompt"),
        ({"instruction": "", "input": "", "output": ""}, "instruction"),
        ({"text": "", "prompt": ""}, "text"),
    ],
)
def test_recognise(fields: dict[str, object], kind: str) -> None:
    assert recognise(Row(fields, 1, "f, line 1")) == kind


def test_unknown_row_names_its_fields() -> None:
    with pytest.raises(DataError, match="f, line 1: the row has 'sentence', 'label', expected one"):
        recognise(Row({"sentence": "", "label": 1}, 1, "f, line 1"))
    with pytest.raises(DataError, match="the row has no fields"):
        recognise(Row({}, 1, "f, line 1"))
