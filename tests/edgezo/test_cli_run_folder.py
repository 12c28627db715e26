"""The folder of a run: two processes on it, one that vanishes, and a process that is told twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edgezo.conftest import Invoke, Tiny, start, tune_args, wait_for_steps


@pytest.fixture
def running(tiny: Tiny, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own that has made some steps and goes on for long."""
    process = start(*tune_args(tiny, "--steps", "100000", "--json"), cwd=tmp_path)
    wait_for_steps(tmp_path / "run")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_second_process_is_told_who_has_the_folder(
    invoke: Invoke, tiny: Tiny, running: subprocess.Popen[str], tmp_path: Path
) -> None:
    again = invoke(*tune_args(tiny, "--steps", "100000"), code=2)
    assert f"process {running.pid} is tuning in this folder; wait until it ends" in again.stderr
    running.kill()
    running.communicate()
    there = (tmp_path / "run" / "journal.bin").stat().st_size
    resumed = start(*tune_args(tiny, "--steps", "100000"), cwd=tmp_path)
    wait_for_steps(tmp_path / "run", size=there + 100)
    resumed.kill()
    resumed.communicate()


@pytest.mark.slow
def test_a_folder_that_vanishes_ends_the_run(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "run")
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 1, stderr
    assert stdout == ""
    assert "error: " in stderr
    assert "was removed while the run went on" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_at_once_lose_nothing(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, number: signal.Signals
) -> None:
    steps = ["--steps", "60", "--max-time", "0", "--json"]
    expected = json.loads(invoke(*tune_args(tiny, *steps), "-o", "whole").stdout)
    process = start(*tune_args(tiny, *steps), cwd=tmp_path)
    wait_for_steps(tmp_path / "run", size=1000)
    process.send_signal(number)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, 130), stderr  # 0: it was done before the first one came
    found = json.loads(invoke(*tune_args(tiny, *steps)).stdout)
    assert found["steps"] == 60
    assert found["adapter_sha256"] == expected["adapter_sha256"]
