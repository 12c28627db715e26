"""The line of requests: one text is written at a time, and few wait for it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgezo.serve.refusals import Refusal, refusal_of
from edgezo_runtime.errors import EdgezoError, InterruptedRunError

_FIRST_GUESS_S = 5.0
"""Seconds that a text takes, before any was written."""


@dataclass(slots=True, eq=False)
class Job:
    """A text to write.

    Attributes:
        work: writes it, in the thread of the line; is given a function that raises when nobody
            waits for it any more. What it yields is handed out.
        events: what was yielded, then None, or the refusal that ended it.
        loop: of the events.
    """

    work: Callable[[Callable[[], None]], Iterator[object]]
    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[object] = field(default_factory=asyncio.Queue)
    _left: threading.Event = field(default_factory=threading.Event)

    def leave(self) -> None:
        """Nobody waits for the text any more."""
        self._left.set()

    @property
    def left(self) -> bool:
        """Has the client gone?"""
        return self._left.is_set()

    def check(self) -> None:
        """Raise when nobody waits for the text any more.

        Raises:
            InterruptedRunError: the client has gone, or the server ends.
        """
        if self.left:
            raise InterruptedRunError("the client has gone")

    def tell(self, event: object) -> None:
        """Hand out an event, from the thread of the line."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)


class WritingLine:
    """Writes the texts of jobs one after another, in a thread.

    Args:
        waiting: most jobs that wait behind the one that is written.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._count = 0
        self._lock = threading.Lock()
        self._open: set[Job] = set()
        self._ended = False
        self._typical_s = _FIRST_GUESS_S
        self._thread = threading.Thread(target=self._write, name="edgezo-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait or are written."""
        return self._count

    def submit(self, job: Job) -> None:
        """Put a job at the end of the line.

        Raises:
            Refusal: too many wait, or the server ends.
        """
        with self._lock:
            if self._ended:
                raise Refusal(503, "the server is being stopped", code="stopping")
            if self._count > self._most:
                after = max(1, round(self._typical_s * self._count))
                raise Refusal(
                    429,
                    f"{self._count} requests are being answered or wait; try again in {after} s",
                    code="queue_full",
                    headers={"Retry-After": str(after)},
                )
            self._count += 1
            self._open.add(job)
        self._jobs.put(job)

    def close(self, patience_s: float = 30.0) -> None:
        """End: what is being written stops at the next block, and nothing follows."""
        with self._lock:
            self._ended = True
            for job in self._open:
                job.leave()
        self._jobs.put(None)
        self._thread.join(patience_s)

    def _write(self) -> None:
        while (job := self._jobs.get()) is not None:
            began = time.monotonic()
            try:
                if not job.left:
                    for event in job.work(job.check):
                        job.tell(event)
                        job.check()
                job.tell(None)
            except InterruptedRunError:
                job.tell(Refusal(503, "the answer was ended", code="stopping"))
            except Refusal as refusal:
                job.tell(refusal)
            except (EdgezoError, MemoryError) as error:
                job.tell(refusal_of(error))
            except Exception as error:  # the line goes on; the client gets no details of the code
                job.tell(Refusal(500, f"internal error: {type(error).__name__}", code="internal"))
                raise_later(error)
            finally:
                with self._lock:
                    self._count -= 1
                    self._open.discard(job)
                    self._typical_s += 0.3 * (time.monotonic() - began - self._typical_s)


def raise_later(error: Exception) -> None:
    """Show an error of our own as threads do, and go on."""
    kind, trace = type(error), error.__traceback__
    threading.excepthook(threading.ExceptHookArgs((kind, error, trace, threading.current_thread())))
