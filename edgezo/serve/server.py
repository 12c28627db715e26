"""The server: a socket, uvicorn on it, and an end that lets no answer hang."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgezo.serve import limits
from edgezo_runtime.errors import EdgezoError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from starlette.applications import Starlette

GRACE_S = 5.0
"""Seconds that answers have to end after the server was asked to stop."""

_HEADER_BYTES = 1 << 16
_IDLE_S = 15


def require_extra() -> None:
    """Import what the server needs, so that a budget counts it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import starlette.applications  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"the server needs {error.name}: pip install 'edgezo[serve]'"
        ) from error


def parse_address(text: str, port: int) -> tuple[str, int]:
    """Split HOST[:PORT] or :PORT; IPv6 addresses with a port are in brackets.

    Args:
        text: the address.
        port: where it has none.
    Raises:
        UsageError: the port is not a number, or out of range.
    """
    host, given = text.strip(), ""
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        given = rest.removeprefix(":")
    elif host.count(":") == 1:
        host, _, given = host.partition(":")
    elif host.isdecimal():
        host, given = "", host
    if given:
        if not (given.isdecimal() and len(given) < 6 and int(given) < 65536):
            raise UsageError(f"address {text!r:.80}: the port must be 0 to 65535")
        port = int(given)
    return host or "127.0.0.1", port


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        EdgezoError: the address is taken, or is none of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        own = socket.socket(family, kind, protocol)
        try:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(address)
            own.listen(64)
        except BaseException:
            own.close()
            raise
    except OSError as error:
        raise EdgezoError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another address or "
            f"port"
        ) from error
    return own


class HttpServer:
    """Serves an application on a socket.

    Args:
        app: the application.
        own: the socket.
    """

    def __init__(self, app: Starlette, own: socket.socket) -> None:
        import uvicorn

        from edgezo.serve.connection import Connection

        class Server(uvicorn.Server):
            """Leaves signals to the command."""

            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield

        config: Any = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            http=Connection,
            ws="none",
            loop="asyncio",
            limit_concurrency=limits.MOST_CONNECTIONS,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=int(GRACE_S),
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        for name in ("uvicorn.error", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the service tells of requests
        self._server = Server(config)
        self._socket = own
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where clients ask."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> None:
        """Serve until `stop`."""
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self.run, name="edgezo-http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and end when those that are answered have ended; quick."""
        self._server.should_exit = True

    def join(self) -> None:
        """Wait for the thread of `start`."""
        if self._thread is not None:
            self._thread.join(2 * GRACE_S)
