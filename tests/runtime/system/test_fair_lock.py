"""The lock that threads get in the order in which they asked for it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.fair_lock import FairLock


def test_the_lock_is_taken_in_the_order_of_coming() -> None:
    lock, order = FairLock(), list[int]()
    threads = []
    with lock:
        for number in range(8):

            def take(number: int = number) -> None:
                with lock:
                    order.append(number)

            threads.append(threading.Thread(target=take))
            threads[-1].start()
            while lock._next < number + 2:
                time.sleep(1e-4)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_an_interrupted_wait_keeps_nobody_waiting(monkeypatch: Any) -> None:
    lock = FairLock()
    with lock, monkeypatch.context() as patch:

        def interrupt(timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

        patch.setattr(lock._changed, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt), lock:
            pass
    with lock:
        pass


def test_a_thread_that_works_for_the_holder_is_refused() -> None:
    """It would wait for itself."""
    lock = FairLock()
    with lock:
        with lock.for_holder():
            assert lock.works_for_holder
            with pytest.raises(UsageError, match="would wait for itself"), lock:
                pass
        assert not lock.works_for_holder
    with lock:
        pass


def test_working_for_the_holder_is_of_one_thread() -> None:
    lock, found = FairLock(), list[bool]()
    with lock.for_holder():
        thread = threading.Thread(target=lambda: found.append(lock.works_for_holder))
        thread.start()
        thread.join()
    assert found == [False]


def test_waiting_without_taking_it() -> None:
    lock = FairLock()
    lock.wait(0)
    with lock:
        begun = time.monotonic()
        lock.wait(0.05)
        assert time.monotonic() - begun >= 0.05
    begun = time.monotonic()
    lock.wait(30)
    assert time.monotonic() - begun < 30
