"""Connections whose clients say nothing, or read nothing, are closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from edgezo.serve import limits
from edgezo.serve.server import HttpServer, bind

ENDED = threading.Event()


async def _endless(request: Request) -> Response:
    async def parts() -> Any:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            ENDED.set()

    return StreamingResponse(parts())


async def _slow(request: Request) -> Response:
    await asyncio.sleep(0.6)
    return PlainTextResponse("done")


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[str, int]]:
    """A server of two paths."""
    own = bind("127.0.0.1", 0)
    server = HttpServer(Starlette(routes=[Route("/endless", _endless), Route("/slow", _slow)]), own)
    server.start()
    found = urlsplit(server.url)
    yield found.hostname or "", found.port or 0
    server.stop()
    server.join()
    own.close()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_S", "READ_S"):
        monkeypatch.setattr(limits, name, 0.3)


def _ended(link: socket.socket) -> bool:
    """Was the connection closed? Reads what is left of it."""
    link.settimeout(5)
    try:
        while link.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("sent", [b"", b"GET /slow HTTP/1.1\r\nHost: a\r\n"])
def test_a_connection_without_a_request_is_closed(place: tuple[str, int], sent: bytes) -> None:
    began = time.monotonic()
    with socket.create_connection(place) as link:
        link.sendall(sent)
        assert _ended(link)
    assert 0.2 < time.monotonic() - began < 3


def test_single_bytes_do_not_keep_a_connection(place: tuple[str, int]) -> None:
    began = time.monotonic()
    with socket.create_connection(place) as link, contextlib.suppress(OSError):
        link.sendall(b"GET /slow HTTP/1.1\r\nX: ")
        while time.monotonic() - began < 5:
            link.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() - began < 3


def test_a_slow_answer_is_waited_for(place: tuple[str, int]) -> None:
    """Longer than a head may take; the timer begins anew behind it."""
    with socket.create_connection(place) as link:
        link.settimeout(5)
        link.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert link.recv(4096).startswith(b"HTTP/1.1 200")
        link.sendall(b"GET ")
        assert _ended(link)


def test_a_client_that_does_not_read_is_left(place: tuple[str, int]) -> None:
    ENDED.clear()
    with socket.create_connection(place) as link:
        link.sendall(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ENDED.wait(5)


def test_one_address_has_a_share_of_the_connections(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 5.0)
    monkeypatch.setattr(limits, "MOST_OF_ONE_PEER", 2)
    links = [socket.create_connection(place) for _ in range(3)]
    closed: list[int] = []
    for number, link in enumerate(links):
        link.settimeout(0.2)
        try:
            assert link.recv(1) == b""
            closed.append(number)
        except ConnectionResetError:
            closed.append(number)
        except TimeoutError:
            pass
    assert closed == [2]
    for link in links:
        link.close()
