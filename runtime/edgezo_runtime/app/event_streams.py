"""Hands events to an app: it takes them from a stream, or a thread of edgezo calls a function.

Neither delays the run: a stream stores the last events only, and a subscriber has its own thread.
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
"""Most events that wait in a stream; a further event replaces the oldest."""

JOIN_S = 5.0
"""Longest time that a closing tuner waits for its subscribers to take the last events."""

_LOG = logging.getLogger(__name__)


class EventStream:
    """An iterator over events; ends when the tuner or the stream is closed.

    Args:
        most: most events that wait.

    Attributes:
        closed: does the stream take no more events?
        missed: number of events that newer ones replaced before they were taken.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._events: deque[Event] = deque()
        self._most = most
        self._changed = threading.Condition()
        self.closed = False
        self.missed = 0

    def put(self, event: Event) -> None:
        """Add an event; never waits for the thread that takes events."""
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
            timeout_s: longest time to wait; None waits until an event arrives or the stream ends.
        Returns:
            The event; None if none arrived in time, or the stream has ended.
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
        """End the stream; the events that wait can still be taken."""
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
    """A thread that calls a function with every event, one after the other.

    Args:
        callback: the function. Its exceptions are logged, and it is called with the next event.
    """

    def __init__(self, callback: Callable[[Event], object]) -> None:
        self._callback = callback
        self.stream = EventStream()
        self._thread = threading.Thread(target=self._run, name="edgezo-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the calls."""
        self.stream.close()

    def join(self, timeout_s: float) -> None:
        """Wait until the last call has returned, unless the subscriber itself calls this."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        for event in self.stream:
            try:
                self._callback(event)
            except Exception:  # an app's function must not end the run
                _LOG.exception("a subscriber failed on %s; the run continues", type(event).__name__)


class EventHub:
    """Hands events to all streams and subscribers of a tuner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: tuple[EventStream, ...] = ()
        self._subscriptions: tuple[Subscription, ...] = ()
        self._listeners: tuple[Callable[[Event], object], ...] = ()
        self._closed = False

    def listen(self, callback: Callable[[Event], object]) -> None:
        """Call a function with every event in the thread that emits it, before `emit` returns."""
        with self._lock:
            self._listeners += (callback,)

    def emit(self, event: Event) -> None:
        """Hand an event to all listeners, streams and subscribers.

        Raises:
            Exception: an exception of a listener.
        """
        for listener in self._listeners:
            listener(event)
        streams = self._streams
        for stream in streams:
            stream.put(event)
        if any(stream.closed for stream in streams):
            self._forget_closed()

    def stream(self) -> EventStream:
        """Make a stream of the events from now on."""
        return self._add(EventStream())

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Call a function with the events from now on, in a thread of its own."""
        subscription = Subscription(callback)
        with self._lock:
            self._subscriptions += (subscription,)
        self._add(subscription.stream)
        return subscription

    def _forget_closed(self) -> None:
        """Drop closed streams and subscriptions: an app may open many of them in turn."""
        with self._lock:
            self._streams = tuple(stream for stream in self._streams if not stream.closed)
            self._subscriptions = tuple(own for own in self._subscriptions if not own.stream.closed)

    def close(self) -> None:
        """End all streams; subscribers have `JOIN_S` to take the events that wait."""
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
