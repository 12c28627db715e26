"""The metrics of a run, which no file that lies there may stop."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgezo.cli.tune.metrics import Metrics
from edgezo_runtime.errors import RunFileError

STEP = {"event": "step", "step": 0, "loss": 1.5}
EVALUATION = {"event": "eval", "split": "valid", "when": "before", "step": 0, "loss": 2.5}


def lines(*entries: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def read(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_a_run_goes_on_from(tmp_path: Path) -> None:
    path = tmp_path / "m"
    later = {**STEP, "step": 1}
    during = {**EVALUATION, "when": "during", "step": 1, "loss": 9.0}
    path.write_text(lines(EVALUATION, STEP, during, later) + '{"event": "st')
    metrics = Metrics(path, 1)
    metrics.write(later)
    metrics.close()
    assert read(path) == [EVALUATION, STEP, during, later]
    found = metrics.find("valid", "before")
    assert found is not None
    assert (found.loss, found.accuracy) == (2.5, None)
    assert metrics.find("test", "before") is None


@pytest.mark.parametrize(
    "damage",
    [
        '{"event": "x", "step": 0, "a": [NaN]}\n',  # ValueError
        '{"event": "x", "step": 0, "a": 1e999}\n',
        '{"event": [], "step": 0}\n',
        '{"event": "x", "step": "0"}\n',
        '{"event": "x"}\n',
        "[" * 5000 + "\n",
        "[]\n",
        '"\\ud800"\n',
        "x" * (1 << 21),
    ],
)
def test_a_damaged_line_ends_what_is_kept(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m"
    path.write_text(lines(STEP) + damage + lines(EVALUATION))
    metrics = Metrics(path, 5)
    metrics.close()
    assert read(path) == [STEP]
    assert metrics.find("valid", "before") is None


@pytest.mark.parametrize(
    "change",
    [{"loss": None}, {"loss": "1"}, {"split": "x"}, {"when": "never"}, {"accuracy": []}],
)
def test_an_evaluation_that_says_little_is_done_again(
    tmp_path: Path, change: dict[str, object]
) -> None:
    """One without a loss was a KeyError when the run had been tuned."""
    path = tmp_path / "m"
    path.write_text(lines({**EVALUATION, **change}))
    metrics = Metrics(path, 5)
    metrics.close()
    assert metrics.find("valid", "before") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_and_a_link_are_refused(tmp_path: Path) -> None:
    """A pipe was waited for, and a link to nothing made a file where it led."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    (tmp_path / "other").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    for name in ("pipe", "dangling", "link"):
        with pytest.raises(RunFileError, match="cannot be used"):
            Metrics(tmp_path / name, 5)
    assert not (tmp_path / "made").exists()
    assert (tmp_path / "other").read_text() == "precious"
