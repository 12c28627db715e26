"""The metadata of adapter files: every version that was ever written is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo_runtime.adapters.adapter_info import VERSION, AdapterInfo, parse_info
from edgezo_runtime.config import AnswerSettings
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.errors import RunFileError

CASES = Path(__file__).parents[2] / "cases" / "adapters"


def read(number: int, **changes: object) -> AdapterInfo:
    """The metadata of a file of some version, with changes."""
    file = CASES / f"version_{number}.json"
    return parse_info(file, json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_version_is_read(number: int) -> None:
    info = read(number)
    assert (info.version, info.steps, info.scope, info.invocation) == (VERSION, 7, "answer", (280,))
    assert (info.scheme.rank, info.scheme.scale) == (2, 4.0)
    assert (info.reading is None) == (info.answers is None) == (number < 3)


def test_the_last_version_says_how_rows_were_read() -> None:
    info = read(3)
    assert info.reading == Reading("{sentence} It was", (" bad", " good"), 128)
    assert info.answers == AnswerSettings(8, 0.0, ("\n",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 4}, "adapter of version 4, this edgezo reads version 3"),
        ({"reading": {"max_seq": "9"}}, "reading"),
        ({"reading": {"labels": [" a"]}}, "label words need a prompt"),
        ({"answers": {"max_new_tokens": 3}}, "answers.temperature: missing"),
        ({"other": 1}, "other: unknown key"),
    ],
)
def test_what_is_damaged_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RunFileError, match=message):
        read(3, **changes)
