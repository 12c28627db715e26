"""The line of requests: one text is written at a time, and few wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgezo.serve.refusals import Refusal, internal, refusal_of
from edgezo_runtime.errors import EdgezoError, InterruptedRunError

_FIRST_GUESS_S = 5.0
"""Seconds that a text takes, before any was written."""

Work = Callable[[Callable[[], None]], Iterator[object]]
"""Writes a text, in the thread of the line; is given a function that raises when nobody waits for
it any more. What it yields is handed out."""


@dataclass(slots=True, eq=False)
class Job:
    """A place in the line, and the text to write.

    Attributes:
        loop: of the events.
        events: what the work yielded, then None, or the refusal that ended it.
    """

    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[object] = field(default_factory=asyncio.Queue)
    _left: threading.Event = field(default_factory=threading.Event)

    def leave(self) -> None:
        """Nobody waits for the text any more."""
        self._left.set()

    def check(self) -> None:
        """Raise when nobody waits for the text any more.

        Raises:
            InterruptedRunError: the client has gone, or the server ends.
        """
        if self._left.is_set():
            raise InterruptedRunError("the client has gone")

    def tell(self, event: object) -> None:
        """Hand out an event, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who waits
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)


class WritingLine:
    """Writes the texts of jobs one after another, in a thread.

    Args:
        waiting: most jobs that wait behind the one that is written.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting
        self._changed = threading.Condition()
        self._places: set[Job] = set()
        self._ready: deque[tuple[Job, Work]] = deque()
        self._written: Job | None = None
        self._ended = False
        self._typical_s = _FIRST_GUESS_S
        self._thread = threading.Thread(target=self._write, name="edgezo-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that have a place: that still arrive, wait, or are written."""
        return len(self._places)

    def enter(self, job: Job) -> None:
        """Take a place, before the body of the request is read; `leave` gives it back.

        Raises:
            Refusal: too many wait, or the server ends.
        """
        with self._changed:
            self._require_open()
            count = len(self._places)
            if count > self._most:
                after = max(1, round(self._typical_s * count))
                raise Refusal(
                    429,
                    f"{count} requests are being answered or wait; try again in {after} s",
                    code="queue_full",
                    headers={"Retry-After": str(after)},
                )
            self._places.add(job)

    def submit(self, job: Job, work: Work) -> None:
        """Put a job that has a place at the end of the line.

        Raises:
            Refusal: the server ends.
        """
        with self._changed:
            self._require_open()
            self._ready.append((job, work))
            self._changed.notify()

    def leave(self, job: Job) -> None:
        """Nobody waits for a job: its place is free, or will be when its writing has stopped."""
        with self._changed:
            job.leave()
            if job is not self._written:
                self._drop(job)

    def close(self, patience_s: float = 30.0) -> None:
        """End: what is being written stops at the next block, and nothing follows."""
        with self._changed:
            self._ended = True
            if self._written is not None:
                self._written.leave()
            for job, _ in list(self._ready):
                self._drop(job)
                job.tell(_stopped())
            self._changed.notify()
        self._thread.join(patience_s)

    # --- under the lock ---

    def _require_open(self) -> None:
        if self._ended:
            raise Refusal(503, "the server is being stopped", code="stopping")

    def _drop(self, job: Job) -> None:
        self._places.discard(job)
        self._ready = deque(own for own in self._ready if own[0] is not job)

    # --- in the thread of the line ---

    def _write(self) -> None:
        while (found := self._next()) is not None:
            job, work = found
            began = time.monotonic()
            end = self._work(job, work)
            with self._changed:
                self._written = None
                self._places.discard(job)
                if end is None:  # others tell nothing about the time that a text takes
                    self._typical_s += 0.3 * (time.monotonic() - began - self._typical_s)
            job.tell(end)

    def _next(self) -> tuple[Job, Work] | None:
        """Wait for the next job; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if self._ended:
                return None
            found = self._ready.popleft()
            self._written = found[0]
            return found

    def _work(self, job: Job, work: Work) -> Refusal | None:
        """Write a text; returns why it was not written to its end."""
        try:
            job.check()
            for event in work(job.check):
                job.tell(event)
                job.check()
        except InterruptedRunError:
            return _stopped()
        except Refusal as refusal:
            return refusal
        except (EdgezoError, MemoryError) as error:
            return refusal_of(error)
        except Exception as error:  # the line goes on; the client gets no details of the code
            return internal(error)
        return None


def _stopped() -> Refusal:
    return Refusal(503, "the answer was ended: the server is being stopped", code="stopping")
