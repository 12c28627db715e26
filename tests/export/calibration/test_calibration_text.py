"""Rows to calibrate with."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgezo_export.calibration import calibration_text
from edgezo_export.calibration.calibration_text import MOST_ROWS, TOKENS, calibration_rows
from edgezo_runtime.errors import MissingExtraError


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_rows_are_spread_over_the_text():
    rows = calibration_rows(encode, 8, 100)
    assert rows.shape == (8, 100)
    assert rows.dtype == np.int64
    assert len({row.tobytes() for row in rows}) == 8
    text = "".join(map(chr, rows[0]))
    assert text == calibration_text._text()[:100]


def test_rows_begin_with_the_first_token():
    rows = calibration_rows(encode, 3, 10, first=1)
    assert rows.shape == (3, 10)
    assert (rows[:, 0] == 1).all()
    assert np.array_equal(rows[0, 1:], calibration_rows(encode, 3, 9)[0])


def test_long_tokens_give_shorter_rows(monkeypatch):
    """All rows have the same length."""
    monkeypatch.setattr(calibration_text, "_text", lambda: ("x" * 39 + " ") * 1000)
    rows = calibration_rows(lambda text: [len(word) for word in text.split()], 4, 50)
    assert rows.shape == (4, 50 * 16 // 40)


@pytest.mark.parametrize("count", [1, 2, 32, MOST_ROWS])
def test_many_rows_are_not_shorter(count):
    rows = calibration_rows(encode, count, TOKENS)
    assert rows.shape == (count, TOKENS)
    text = calibration_text._text()
    starts = [text.find("".join(map(chr, row))) for row in rows[[0, -1]]]
    assert starts[0] == 0
    assert count == 1 or starts[1] > 0.9 * len(text) * (count - 1) / count


def test_a_python_without_the_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(MissingExtraError, match="calibration_rows=0"):
        calibration_rows(encode, 1, 5)
