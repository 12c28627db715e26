"""Requests of strangers: refused in JSON, before they cost much, and the server goes on."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from edgezo.serve import limits
from edgezo.serve.answers import Answers
from tests.edgezo.serve.conftest import KEY, Served, serving, wait_until

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "plain", "messages": [{"role": "user", "content": "great film"}]}


def ask(
    served: Served, body: Any = ASKED, path: str = CHAT, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """One request: status, headers and JSON of the reply."""
    place = urlsplit(served.url)
    link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    sent = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **headers}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    link.request(method, path, data, {name.replace("_", "-"): sent[name] for name in sent})
    reply = link.getresponse()
    text = reply.read()
    link.close()
    found = {name.lower(): value for name, value in reply.getheaders()}
    return reply.status, found, json.loads(text) if text.startswith(b"{") else text


def refused(reply: tuple[int, dict[str, str], Any], status: int, code: str | None = None) -> str:
    """Check the form of a refusal; returns its message."""
    assert reply[0] == status, reply
    error = reply[2]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    if code is not None:
        assert error["code"] == code
    return str(error["message"])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"model": NaN}', b'{"a": 1, "a": 2}',
        b"[" * 9000, b'{"x":' * 3000 + b"1" + b"}" * 3000, b'{"a": "\\ud800"}',
        b'{"a": 1' + b"0" * 9000 + b"}",
    ],
)  # fmt: skip
def test_bad_json_is_refused(served: Served, body: bytes) -> None:
    refused(ask(served, body), 400, "bad_json")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [5]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages.0.content"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1e9}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": -(10**400)}, "top_p"),
        ({"max_tokens": 10**400}, "max_tokens"),
        ({"stream": 1}, "stream"),
        ({"stop": [""]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"tools": "none"}, "tools"),
        ({"n": True}, "n"),
        ({"stream": True, "stream_options": {"extra": 1}}, "stream_options.extra"),
    ],
)
def test_wrong_types_are_refused_by_name(served: Served, change: Any, param: str) -> None:
    reply = ask(served, {**ASKED, **change})
    refused(reply, 400)
    assert reply[2]["error"]["param"] == param


@pytest.mark.parametrize(
    "prompt", [None, "", [], [True], [5, "a"], ["a", "b"], [-1], [10**9], {"a": 1}, "\udc80"]
)
def test_wrong_prompts_are_refused(served: Served, prompt: Any) -> None:
    reply = ask(served, {"model": "plain", "prompt": prompt}, "/v1/completions")
    refused(reply, 400)
    assert reply[2]["error"]["param"] in ("prompt", None)  # no text at all has no field


def test_paths_and_methods_that_there_are_not(served: Served) -> None:
    refused(ask(served, path="/v1/files"), 404)
    refused(ask(served, path="/v1/../../etc/passwd"), 404)
    refused(ask(served, path="/v1/models/..%2f..%2fetc%2fpasswd", method="GET"), 404)
    refused(ask(served, path=CHAT, method="GET"), 405)
    assert ask(served, {**ASKED, "model": "/etc/passwd"})[0] == 404
    assert ask(served, path="/health", method="GET", Authorization="")[2]["status"] == "ok"


def test_the_key_is_needed(served: Served) -> None:
    for given in ("", "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x", KEY, "Bearer \xe9"):
        reply = ask(served, Authorization=given)
        assert "Bearer KEY" in refused(reply, 401, "invalid_api_key")
        assert reply[1]["www-authenticate"] == "Bearer"
    assert ask(served, {**ASKED, "max_tokens": 1})[0] == 200


def test_only_names_of_this_machine_are_answered(served: Served) -> None:
    """A page of strangers may have its name lead to 127.0.0.1 (DNS rebinding)."""
    for name in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:80"):
        refused(ask(served, Host=name), 403, "wrong_host")
        refused(ask(served, path="/health", method="GET", Host=name), 403, "wrong_host")
    for name in ("localhost", "LOCALHOST:99", "127.0.0.1:1", "[::1]:80"):
        assert ask(served, path="/v1/models", method="GET", Host=name)[0] == 200


def test_pages_of_strangers_may_not_ask(served: Served) -> None:
    refused(ask(served, Origin="http://evil.example"), 403, "wrong_origin")
    refused(ask(served, Origin="null"), 403, "wrong_origin")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        refused(ask(served, Content_Type=kind), 415)  # what a page can send unasked
    assert ask(served, method="OPTIONS", Origin="http://evil.example")[0] == 405


@pytest.mark.slow
def test_a_page_that_is_allowed_may_ask(served: Served) -> None:
    page = "http://localhost:3000"
    with serving(served.speaker, origins=(page,)) as other:
        wanted = {"Access_Control_Request_Headers": "authorization, content-type"}
        status, headers, _ = ask(other, method="OPTIONS", Origin=page, Authorization="", **wanted)
        assert status == 204
        assert headers["access-control-allow-origin"] == page
        assert headers["access-control-allow-headers"] == "authorization, content-type"
        status, headers, _ = ask(other, path="/v1/models", method="GET", Origin=page)
        assert (status, headers["access-control-allow-origin"]) == (200, page)
        refused(ask(other, Origin="http://localhost:3001"), 403, "wrong_origin")


def test_a_huge_body_is_refused_before_it_is_read(served: Served) -> None:
    place = urlsplit(served.url)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\n"
    )
    with socket.create_connection((place.hostname, place.port), 10) as link:
        link.sendall(f"{head}Content-Length: 99999999999\r\n\r\n".encode())
        assert link.recv(100).startswith(b"HTTP/1.1 413")
    with socket.create_connection((place.hostname, place.port), 10) as link:
        link.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
        link.sendall(part * 3)  # more than the limit, and no end
        assert link.recv(100).startswith(b"HTTP/1.1 413")


def _begun(served: Served) -> socket.socket:
    """A connection with a request whose body does not come."""
    place = urlsplit(served.url)
    link = socket.create_connection((place.hostname, place.port), 10)
    link.sendall(
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n{{".encode()
    )
    return link


def test_a_slow_client_holds_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.3)
    with _begun(served) as link:
        assert ask(served, {**ASKED, "max_tokens": 1})[0] == 200  # another one meanwhile
        assert link.recv(100).startswith(b"HTTP/1.1 408")
    assert served.line.waiting == 0  # its place is free again


def test_two_clients_get_their_own_answers(served: Served) -> None:
    alone = {
        name: ask(served, {**ASKED, "model": name, "max_tokens": 12})[2]["choices"][0]
        for name in ("plain", "tuned")
    }
    found: dict[int, Any] = {}

    def one(number: int, name: str) -> None:
        found[number] = ask(served, {**ASKED, "model": name, "max_tokens": 12})[2]["choices"][0]

    names = ["plain", "tuned"] * 3
    threads = [threading.Thread(target=one, args=own) for own in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == [alone[name] for name in names]


def test_a_full_line_says_when_to_come_back(
    served: Served, held: Callable[[], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.line, "_most", 1)
    go = held()
    replies: list[Any] = []
    threads = [
        threading.Thread(target=lambda: replies.append(ask(served, {**ASKED, "max_tokens": 5})))
        for _ in range(2)
    ]
    for number, thread in enumerate(threads, 1):
        thread.start()
        wait_until(lambda number=number: served.line.waiting == number)
    reply = ask(served)
    assert "2 requests" in refused(reply, 429, "queue_full")
    assert int(reply[1]["retry-after"]) >= 1
    with _begun(served) as link:  # its body is not waited for, so there is none to hold
        assert link.recv(100).startswith(b"HTTP/1.1 429")
    go.set()
    for thread in threads:
        thread.join()
    assert [reply[0] for reply in replies] == [200, 200]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_text(
    served: Served, held: Callable[[], threading.Event], stream: bool
) -> None:
    held()
    place = urlsplit(served.url)
    link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    link.request("POST", CHAT, json.dumps({**ASKED, "stream": stream}), headers)
    if stream:
        link.getresponse().readline()
    wait_until(lambda: served.line.waiting == 1)
    assert link.sock is not None
    link.sock.shutdown(socket.SHUT_RDWR)
    link.close()
    wait_until(lambda: served.line.waiting == 0)  # nobody let it go


def test_an_end_of_the_server_ends_answers(
    served: Served, held: Callable[[], threading.Event]
) -> None:
    """Of the text that is written, and of those that wait, whole or streamed."""
    held()
    with serving(served.speaker) as other:
        replies: dict[int, Any] = {}

        def one(number: int) -> None:
            replies[number] = ask(other, {**ASKED, "stream": number == 2})

        threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda number=number: other.line.waiting == number)
        other.server.stop()
        other.line.close()
        for thread in threads:
            thread.join(10)
    for number in range(3):
        refused(replies[number], 503, "stopping")


@pytest.mark.parametrize("place", ["line", "path"])
def test_an_error_of_our_own_tells_no_details(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    def broken(*args: Any) -> Any:
        raise KeyError("secret")

    if place == "line":
        monkeypatch.setattr(served.speaker, "write", broken)
    else:
        monkeypatch.setattr(Answers, "check", broken)
    reply = ask(served)
    assert "secret" not in refused(reply, 500, "internal")
    first, *trace = caplog.text.splitlines()
    assert "internal error: KeyError: 'secret'" in first
    assert any("in broken" in line for line in trace)
    monkeypatch.undo()
    assert ask(served, {**ASKED, "max_tokens": 1})[0] == 200
