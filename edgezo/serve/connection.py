"""A connection of HTTP that does not stay when nothing comes from its client.

uvicorn bounds the time between two requests only: not that of a connection without a request, or
with half a head, nor that of a client that does not read its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.h11_impl import H11Protocol

from edgezo.serve import limits


class Connection(H11Protocol):
    """Closes itself after `HEAD_S` without a request, and `READ_S` without a reader."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self._head = _Timer(self._end_of_patience)
        self._unread = _Timer(transport.abort)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` tells of any byte not taken
        if self._of_this_peer() > limits.MOST_OF_ONE_PEER:
            transport.abort()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a head do not begin the time anew."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """Bytes of an answer wait for the client."""
        super().pause_writing()
        self._unread.start(limits.READ_S)

    def resume_writing(self) -> None:
        """The client has taken all bytes."""
        super().resume_writing()
        self._unread.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timers."""
        self._head.stop()
        self._unread.stop()
        super().connection_lost(exc)

    def _of_this_peer(self) -> int:
        """Connections of the address that this one comes from."""
        if self.client is None:
            return 0
        known = [own.client for own in self.connections if isinstance(own, Connection)]
        return sum(client is not None and client[0] == self.client[0] for client in known)

    @property
    def _answers(self) -> bool:
        """Is a request being answered?"""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_head(self) -> None:
        """Run the timer as long as no request is there."""
        if self._answers or self.transport.is_closing():
            self._head.stop()
        else:
            self._head.start(limits.HEAD_S)

    def _end_of_patience(self) -> None:
        if not self._answers:
            self.transport.abort()


class _Timer:
    """Acts once when its time is over."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Run, unless it runs already."""
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._over)

    def stop(self) -> None:
        """Do not act."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _over(self) -> None:
        self._handle = None
        self._act()
