"""A connection of HTTP that does not stay when nothing comes from its client.

uvicorn bounds the time between two requests only: not that of a connection without a request, or
with half a head, nor that of a client that does not read its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from edgezo.serve import limits


class Connection(H11Protocol):
    """Closes itself after `HEAD_S` without a request, and `READ_S` without a reader."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` tells of any byte not taken
        peer = self.client and self.client[0]
        same = sum(bool(own.client) and own.client[0] == peer for own in self._others())
        if peer and same > limits.MOST_OF_ONE_PEER:
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
        if self._unread is None:
            self._unread = self.loop.call_later(limits.READ_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken all bytes."""
        super().resume_writing()
        self._unread = _cancelled(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timers."""
        self._head, self._unread = _cancelled(self._head), _cancelled(self._unread)
        super().connection_lost(exc)

    def _others(self) -> list[Any]:
        return [own for own in self.connections if isinstance(own, Connection)]

    @property
    def _answers(self) -> bool:
        """Is a request being answered?"""
        return self.cycle is not None and not self.cycle.response_complete

    def _watch_head(self) -> None:
        """Run the timer as long as no request is there."""
        if self._answers or self.transport.is_closing():
            self._head = _cancelled(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(limits.HEAD_S, self._end_of_patience)

    def _end_of_patience(self) -> None:
        self._head = None
        if not self._answers:
            self.transport.abort()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
