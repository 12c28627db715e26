"""A run and its folder: begun, resumed, refused, closed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import (
    RunFileError,
    UsageError,
)
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.run_log import RunLog
from tests.runtime.tuner_runs import (
    BASE,
    run_to_the_end,
    unstarted,
)

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_journal_that_cannot_be_closed_lets_the_folder_go(
    bundle, examples, tmp_path, monkeypatch
):
    tuner = Tuner.open(bundle, examples, BASE, tmp_path)
    close = tuner.run.log._journal.close

    def full() -> None:
        close()
        raise RunFileError("no space left")

    monkeypatch.setattr(tuner.run.log._journal, "close", full)
    with pytest.raises(RunFileError, match="no space left"):
        tuner.close()
    Tuner.open(bundle, examples, BASE, tmp_path, resume=True).close()


def test_a_folder_with_a_run_is_not_overwritten(bundle, examples, tmp_path):
    expected = run_to_the_end(bundle, examples, BASE, tmp_path)
    with pytest.raises(UsageError, match="holds a run; resume it, or choose another folder"):
        Tuner.open(bundle, examples, BASE, tmp_path, resume=False)
    assert run_to_the_end(bundle, examples, BASE, tmp_path) == expected


def test_a_tuner_that_is_closed_while_it_starts_lets_the_folder_go(
    bundle, examples, tmp_path, monkeypatch
):
    """Pins a run that went on without its lock."""
    begin, entered = RunLog.begin, threading.Event()

    def slow(log: RunLog, rates: Rates) -> None:
        entered.set()
        time.sleep(0.2)
        begin(log, rates)

    monkeypatch.setattr(RunLog, "begin", slow)
    tuner = unstarted(Engine(bundle), examples, BASE, RunFolder(tmp_path))
    thread = threading.Thread(target=tuner.start)
    thread.start()
    entered.wait()
    tuner.close()
    thread.join()
    assert tuner.closed
    with pytest.raises(UsageError, match="the tuner is closed"):
        tuner.start()
    monkeypatch.undo()
    run_to_the_end(bundle, examples, BASE, tmp_path)


_HOLD = """
import sys
import threading
import time
from pathlib import Path
from edgezo_runtime.journal.run_folder import RunFolder
RunFolder(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time(bundle, examples, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {other.pid} is tuning in this folder"):
            Tuner.open(bundle, examples, BASE, tmp_path)
        assert not (tmp_path / "journal.bin").exists()
        other.communicate("")
    with Tuner.open(bundle, examples, BASE, tmp_path):
        with pytest.raises(UsageError, match="this process is tuning"):
            Tuner.open(bundle, examples, BASE, tmp_path, resume=True)
        assert RunFolder(tmp_path).has_journal()
    run = RunFolder(tmp_path)
    with Tuner.open(bundle, examples, BASE, run) as first:
        with pytest.raises(UsageError, match="another tuner of this process"):
            Tuner.open(bundle, examples, BASE, run)
        first.step()
    Tuner.open(bundle, examples, BASE, tmp_path, resume=True).close()
