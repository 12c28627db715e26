"""Forks of a process that tunes: everything is refused there at once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from edgezo import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import UsageError
from tests.runtime.app_runs import opened
from tests.runtime.forked_calls import CALLS, FORK_OF_USER, not_refused
from tests.runtime.stepping_process import run_process
from tests.runtime.tuner_runs import state_bits

pytestmark = [
    pytest.mark.usefixtures("unsynced"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]


def test_every_method_is_called() -> None:
    public = {name for name, value in vars(Tuner).items() if name[0] != "_" and callable(value)}
    called = set(CALLS) - {"pause and wait"}
    assert public - {"close"} == called  # `open` is a classmethod object, and not callable


def test_a_fork_leaves_the_run_alone(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path / "alone") as alone:
        assert len(list(alone)) == 6
        expected = state_bits(alone.run.state)
    with opened(bundle, tmp_path / "forked") as tuner:
        tuner.step()
        child = os.fork()
        if not child:  # nothing of pytest's may run here
            odd = len(not_refused(tuner))
            tuner.close()
            os._exit(odd)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [report.step for report in tuner] == [1, 2, 3, 4, 5]
        assert state_bits(tuner.run.state) == expected


def test_a_fork_waits_for_no_lock_of_the_other_process(bundle: Bundle, tmp_path: Path) -> None:
    """Pins `evaluate` in a child that was forked while a step held the lock: it waited for ever."""
    with opened(bundle, tmp_path / "run") as tuner:
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with (
                tuner._steps,
                tuner.run.lock,
                tuner.run.gate._changed,
                tuner._added._changed,
                ENVIRONMENT._lock,
                ENVIRONMENT.turns,
            ):
                held.set()
                done.wait(120)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(120)
        child = os.fork()
        if not child:
            signal.alarm(60)  # a child that waits is killed, and its status says so
            odd = len(not_refused(tuner))
            try:
                opened(bundle, tmp_path / "own")
                odd += 1
            except UsageError as error:
                odd += FORK_OF_USER not in str(error)
            tuner.close()
            os._exit(odd)
        status = os.waitpid(child, 0)[1]
        done.set()
        thread.join()
        assert os.waitstatus_to_exitcode(status) == 0
        assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_a_fork_cannot_use_a_tuner(bundle: Bundle, tmp_path: Path) -> None:
    """Neither one of its own nor its parent's, whatever the threads of the parent hold."""
    run_process(bundle, tmp_path, "fork", 2)
