"""Who may ask: the name of the host, the page that asks, the key, the size of the body."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgezo.serve.limits import BODY_BYTES
from edgezo.serve.refusals import Refusal
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from starlette.requests import Request

_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks requests before their bodies are read.

    Attributes:
        host: address that the server is bound to.
        api_key: that clients must have; None: none.
        hosts: further names of the host, which count where it is bound to this machine only.
        origins: pages of other hosts that may ask.
        body_bytes: largest body.
    """

    host: str
    api_key: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    body_bytes: int = BODY_BYTES

    @property
    def is_local(self) -> bool:
        """Is the server bound to this machine only?"""
        return is_loopback(self.host)

    def check_host(self, given: str | None) -> None:
        """Refuse names that a page of strangers may have given to this address (DNS rebinding).

        Raises:
            Refusal: the server is bound to loopback, and the request names another host.
        """
        if not self.is_local:
            return
        name = host_name(given or "")
        if name not in _LOCAL | {host_name(self.host)} | set(map(host_name, self.hosts)):
            raise Refusal(
                403, "the request names another host than this machine", code="wrong_host"
            )

    def check_origin(self, origin: str | None) -> None:
        """Refuse what pages of other hosts ask, unless they are allowed.

        Raises:
            Refusal: the page is not allowed.
        """
        if origin is not None and not self.allows(origin):
            raise Refusal(403, "this page may not ask here", code="wrong_origin")

    def allows(self, origin: str) -> bool:
        """May a page of this origin ask?"""
        return origin in self.origins or "*" in self.origins

    def check_key(self, header: str | None) -> None:
        """Refuse requests without the key, in constant time.

        Raises:
            Refusal: the key is missing or wrong.
        """
        if self.api_key is None:
            return
        scheme, _, token = (header or "").partition(" ")
        given = token.encode("latin-1", "replace").strip()  # the bytes that the client sent
        right = [hmac.compare_digest(given, own) for own in _sent_forms(self.api_key)]
        if not (any(right) and scheme.lower() == "bearer"):
            raise Refusal(
                401,
                "give the API key: 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def check(self, request: Request) -> None:
        """All checks but that of the key, which /health does without."""
        self.check_host(request.headers.get("host"))
        self.check_origin(request.headers.get("origin"))

    async def body(self, request: Request) -> bytes:
        """Read the body, as far as it is allowed.

        Raises:
            Refusal: it is larger, or no JSON by its own words.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a page of strangers can send other types unasked
            raise Refusal(415, "give 'Content-Type: application/json'", code="wrong_content_type")
        size = request.headers.get("content-length", "")
        if size.isdecimal() and len(size) < 20 and int(size) > self.body_bytes:
            raise self._too_large()
        found = bytearray()
        async for part in request.stream():
            if len(found) + len(part) > self.body_bytes:
                raise self._too_large()
            found += part
        return bytes(found)

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"the body is larger than {self.body_bytes} bytes",
            code="body_too_large",
            headers={"Connection": "close"},
        )


def parse_key(text: str | None, name: str) -> str | None:
    """A key without the space around it; None stays None.

    Args:
        text: as given.
        name: of what it was given by.
    Raises:
        UsageError: it is empty, so that it would protect nothing.
    """
    key = None if text is None else text.strip()
    if key == "":
        raise UsageError(f"{name}: the key is empty; give one, or leave it out")
    return key


def _sent_forms(key: str) -> list[bytes]:
    """The bytes of a key as clients send it: most as UTF-8, some as Latin-1."""
    found = [key.encode("utf-8", "surrogateescape")]
    try:
        return [*found, key.encode("latin-1")]
    except UnicodeEncodeError:
        return found


def is_loopback(host: str) -> bool:
    """Does an address lead to this machine only?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a Host header, without its port, in lower case; IPv6 in brackets."""
    text = header.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    if text.count(":") > 1:  # an address that was given without brackets
        return f"[{text}]"
    return text.partition(":")[0]
