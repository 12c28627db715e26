"""A run and its folder: begun, resumed, refused, closed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.run_log import RunLog
from tests.runtime.tuner_runs import BASE, run_to_the_end, unstarted

pytestmark = pytest.mark.usefixtures("unsynced")


RATES = Rates(0.03, 0.01, seconds=1.5)


def made(bundle: Bundle, examples: ExampleSet, folder: Path, **options: Any) -> Run:
    return Run(Engine(bundle), examples, BASE, RunFolder(folder), **options)


def test_a_run_that_begins_is_measured_and_one_that_resumes_is_not(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    run = made(bundle, examples, tmp_path)
    assert run.closed
    assert list(tmp_path.iterdir()) == []
    run.start(lambda: RATES, resume=False)
    assert (run.closed, run.rates, run.state.elapsed_s) == (False, RATES, 1.5)
    run.close()
    assert run.closed
    again = made(bundle, examples, tmp_path)
    again.start(lambda: pytest.fail("measured"), resume=True)
    assert (again.rates, again.state.elapsed_s, again.step_number) == (RATES, 1.5, 0)
    again.close()


def test_a_start_that_fails_lets_everything_go(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    run = made(bundle, examples, tmp_path)
    with pytest.raises(MemoryError):
        run.start(lambda: (_ for _ in ()).throw(MemoryError), resume=True)
    assert run.closed
    assert not run.folder.has_journal()
    other = made(bundle, examples, tmp_path)
    other.start(lambda: RATES, resume=False)  # neither folder nor lock is in use
    other.close()
    other.closing = True
    with pytest.raises(UsageError, match="the tuner is closed"):
        other.start(lambda: RATES, resume=True)


def test_the_status_of_a_run_says_what_it_waits_for(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    run = made(bundle, examples, tmp_path)
    assert run.status(begun=False).phase == "closed"
    run.start(lambda: RATES, resume=True)
    assert run.status(begun=False).phase == "ready"
    assert run.status(begun=True).phase == "running"
    run.gate.hold(run, "lunch")
    status = run.status(begun=True)
    assert (status.phase, status.reason, status.examples) == ("paused", "lunch", 8)
    run.gate.release(run)
    run.gate.stop()
    assert (run.status(begun=True).phase, run.done) == ("stopped", True)
    assert (run.status(begun=True).ended_by, run.ended_by) == ("stop", "stop")
    run.state.step = 3
    assert run.status(begun=True).step == 0  # what others see changes between two steps
    assert run.fraction_done == 0.5
    run.note_progress()
    status = run.status(begun=True)
    assert (status.step, status.fraction_done, status.elapsed_s) == (3, 0.5, 1.5)
    run.state.step = 6
    run.note_progress()
    status = run.status(begun=True)
    assert (status.phase, status.ended_by, status.steps_planned) == ("done", "steps", 6)
    run.close()


def test_a_cache_may_take_half_of_what_is_free(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a run which was interrupted counts as free, and a folder need not exist."""
    asked = []

    def disk_usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=1000)

    monkeypatch.setattr("edgezo_runtime.training.run.shutil.disk_usage", disk_usage)
    run = made(bundle, examples, tmp_path / "new" / "run")
    assert run.cache_limit == 500
    assert asked == [tmp_path]
    (tmp_path / "new" / "run").mkdir(parents=True)
    run.folder.cache.write_bytes(bytes(200))
    assert run.cache_limit == 600


def test_a_run_says_what_it_consists_of(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    run = made(bundle, examples, tmp_path)
    assert run.examples is examples
    assert (run.batch_size, run.groups, run.scope) == (2, 2, "all")
    assert (run.trajectory.layout.blocks, run.first_order_blocks) == ([0, 1], [])
    assert run.trajectory.settled.batch_size == 2
    assert run.state.theta is run.state.theta
    assert run.probes is run.evaluator.probes
    run.engine.close()


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
