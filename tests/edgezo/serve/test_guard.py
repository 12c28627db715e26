"""Keys and names of hosts, as clients send them."""

from __future__ import annotations

import pytest

from edgezo.serve.guard import Guard, parse_key
from edgezo.serve.refusals import Refusal
from edgezo_runtime.errors import UsageError


@pytest.mark.parametrize("key", ["plain", "schl\xfcssel-\xe0", "\u043a\u043b\u044e\u0447"])
def test_a_key_is_compared_as_bytes(key: str) -> None:
    """Servers of HTTP read headers as Latin-1, whatever the client wrote."""
    guard = Guard("127.0.0.1", key)
    guard.check_key("Bearer " + key.encode().decode("latin-1"))
    if key.isascii() or key[0] == "s":
        guard.check_key(f"bearer  {key} ")
    for wrong in (key[:-1], key + "x", "", "\u20ac"):
        with pytest.raises(Refusal):
            guard.check_key("Bearer " + wrong.encode().decode("latin-1"))


def test_an_empty_key_is_refused() -> None:
    assert parse_key(None, "--api-key") is None
    assert parse_key(" k\n", "--api-key") == "k"
    for text in ("", "  "):
        with pytest.raises(UsageError, match="--api-key: the key is empty"):
            parse_key(text, "--api-key")


def test_allowed_hosts_are_compared_without_ports() -> None:
    guard = Guard("127.0.0.1", hosts=("Proxy:8080", "::2"))
    for name in ("proxy:8080", "PROXY", "[::2]:9", "localhost:1"):
        guard.check_host(name)
    for name in ("proxy.example", "[::3]"):
        with pytest.raises(Refusal):
            guard.check_host(name)
    Guard("0.0.0.0", "k").check_host("any.example")  # other machines know it by names of their own
