"""How events come to an app: it takes them from a stream, or a thread of ours calls it.

Whoever is told of an event never holds up the run: a stream keeps the last events only, and a
subscriber is called by a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from edgezo_runtime.app.events import Event

MOST_EVENTS = 1000
"""Events that wait in a stream; what comes then takes the place of the oldest."""

JOIN_S = 5.0
"""How long a closing tuner waits for a subscriber to take the last events."""

_LOG = logging.getLogger(__name__)


class EventStream:
    """An iterator over events; ends when the tuner is closed, or the stream.

    Attributes:
        closed: does it take no more events?
        missed: events that were never taken, because `MOST_EVENTS` newer ones waited.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._events: deque[Event] = deque()
        self._most = most
        self._changed = threading.Condition()
        self.closed = False
        self.missed = 0

    def put(self, event: Event) -> None:
        """Add an event; never waits for whoever takes them."""
        with self._changed:
            if self.closed:
                return
            if len(self._events) == self._most:
                self._events.popleft()
                self.missed += 1
            self._events.append(event)
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> Event | None:
        """Take the next event.

        Args:
            timeout_s: how long to wait for one; None waits until there is one or no more come.
        Returns:
            None if none came, or no more do.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._events or self.closed, timeout_s)
            return self._events.popleft() if self._events else None

    def __iter__(self) -> EventStream:
        """Return the stream itself."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event."""
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Take no more events; those that wait can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def __enter__(self) -> EventStream:
        """Return the stream; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


class Subscription:
    """A thread that calls a subscriber with every event, one after the other.

    Args:
        callback: is told of events. What it raises is logged, and it is told of the next event.
    """

    def __init__(self, callback: Callable[[Event], object]) -> None:
        self._callback = callback
        self.stream = EventStream()
        self._thread = threading.Thread(target=self._run, name="edgezo-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Be told of nothing more."""
        self.stream.close()

    def join(self, timeout_s: float) -> None:
        """Wait until the last event was told, unless this is the subscriber itself."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        for event in self.stream:
            try:
                self._callback(event)
            except Exception:  # whatever an app's function raises is not the run's business
                _LOG.exception("a subscriber failed on %s; the run goes on", type(event).__name__)


class EventHub:
    """Hands events to all streams and subscribers of a tuner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: tuple[EventStream, ...] = ()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._listeners: tuple[Callable[[Event], object], ...] = ()
        self._closed = False

    def listen(self, callback: Callable[[Event], object]) -> None:
        """Have a function called by the thread that emits, before `emit` returns."""
        with self._lock:
            self._listeners += (callback,)

    def emit(self, event: Event) -> None:
        """Tell everyone.

        Raises:
            Exception: what a listener raised.
        """
        for listener in self._listeners:
            listener(event)
        streams = self._streams
        for stream in streams:
            stream.put(event)
        if any(stream.closed for stream in streams):
            self._forget_closed()

    def stream(self) -> EventStream:
        """A new stream of the events from now on."""
        return self._add(EventStream())

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Have a function called with the events from now on."""
        subscription = Subscription(callback)
        with self._lock:
            self._subscriptions += (subscription,)
        self._add(subscription.stream)
        return subscription

    def _forget_closed(self) -> None:
        """Keep nothing of those that left: an app may listen again and again."""
        with self._lock:
            self._streams = tuple(stream for stream in self._streams if not stream.closed)
            self._subscriptions = tuple(own for own in self._subscriptions if not own.stream.closed)

    def close(self) -> None:
        """End all streams; the subscribers have `JOIN_S` for what they were not told yet."""
        with self._lock:
            self._closed = True
            streams, self._streams = self._streams, ()
            subscriptions, self._subscriptions = self._subscriptions, ()
        for stream in streams:
            stream.close()
        until = time.monotonic() + JOIN_S if subscriptions else 0.0
        for subscription in subscriptions:
            subscription.join(max(0.0, until - time.monotonic()))

    def _add(self, stream: EventStream) -> EventStream:
        with self._lock:
            if self._closed:
                stream.close()
            else:
                self._streams += (stream,)
        return stream
