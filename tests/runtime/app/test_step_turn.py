"""The turn to take steps: one thread at a time, and a step that waits for its caller is refused."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.app.step_turn import StepTurn
from edgezo_runtime.errors import UsageError


def turn(*, inside: bool = False) -> StepTurn:
    engine: Any = SimpleNamespace(inside=inside, require_here=lambda: None)
    return StepTurn(engine)


def test_one_thread_has_the_turn() -> None:
    own, entered = turn(), threading.Event()

    def other() -> None:
        with own:
            entered.set()

    thread = threading.Thread(target=other)
    with own:
        thread.start()
        assert not entered.wait(0.05)
    thread.join(30)
    assert entered.is_set()


def test_a_step_cannot_wait_for_its_own_thread() -> None:
    own = turn()
    own.require_outside("close")
    with own, own.stepping():
        with pytest.raises(UsageError, match="'close' was called by a reward or a governor"):
            own.require_outside("close")
        refused: list[str] = []
        thread = threading.Thread(target=lambda: refused.append(str(own.require_outside("close"))))
        thread.start()
        thread.join(30)
        assert refused == ["None"]  # another thread may wait
    own.require_outside("close")


def test_a_governor_inside_a_pass_is_refused() -> None:
    with pytest.raises(UsageError, match="'pause' was called"):
        turn(inside=True).require_outside("pause")


def test_an_error_in_a_step_ends_it() -> None:
    own = turn()
    with pytest.raises(ZeroDivisionError), own, own.stepping():
        raise ZeroDivisionError
    own.require_outside("step")
    with own:
        pass
