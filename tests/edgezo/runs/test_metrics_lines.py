"""Lines of metrics; tests/edgezo/test_metrics.py has the damaged ones."""

from __future__ import annotations

import io

from edgezo.runs.metrics_lines import metrics_lines


def test_an_incomplete_line_ends_them() -> None:
    file = io.BytesIO(b'{"event": "step", "step": 0}\n{"event": "step", "step": 1')
    assert [entry["step"] for _, entry in metrics_lines(file)] == [0]


def test_a_line_comes_with_its_text() -> None:
    text = '{"event": "eval",  "step": 3, "loss": 1.5}\n'
    assert list(metrics_lines(io.BytesIO(text.encode()))) == [
        (text, {"event": "eval", "step": 3, "loss": 1.5})
    ]
