"""A disk that is full, or fails once, at any operation: a clear end, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.c_library import build
from tests.crash.disk_library import SOURCE
from tests.crash.sampling import every
from tests.edgezo.conftest import Tiny

EVERY = every(120)
"""Every so many operations are tried; 1 takes some minutes a method."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        ("--first-order", "0", "--lr", "0.1", "--eps", "0.1"),
        (),
        ("--method", "feedback", "--pairs", "16"),
        ("--method", "feedback", "--scope", "all"),
    ],
    ids=str,
)
def test_a_disk_that_fails_loses_nothing(
    deep: Tiny, tmp_path: Path, method: tuple[str, ...]
) -> None:
    library = build(tmp_path, SOURCE)
    runs = tmp_path / "runs"
    runs.mkdir()
    args = [
        deep.int8, "--budget", "8GB", "--data", deep.data, "--steps", "4", "--batch-size", "8",
        "--threads", "1", "--max-time", "0", "--save-every", "2", *method,
    ]  # fmt: skip
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.full_disk_runs", runs, str(EVERY), *map(str, args)],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    print(found)
    assert found["wrong"] == []
    assert found["operations"] > 30
    assert "full: exit 1" in found["ends"]
