"""ShareGPT messages: who speaks, function calls, and what is refused."""

from typing import Any

import pytest

from edgezo_runtime.data.share_gpt import ROLES, share_gpt_messages
from edgezo_runtime.errors import DataError


@pytest.mark.parametrize(
    ("speaker", "role"),
    [
        ("system", "system"),
        ("human", "user"),
        ("user", "user"),
        ("gpt", "assistant"),
        ("assistant", "assistant"),
        ("tool", "tool"),
        ("observation", "tool"),
        ("function_response", "tool"),
    ],
)
def test_roles(speaker: str, role: str) -> None:
    assert ROLES[speaker] == role
    (got,) = share_gpt_messages([{"from": speaker, "value": "x", "weight": 0}], "f, line 1")
    assert got == {"role": role, "content": "x", "weight": 0}


def test_function_calls() -> None:
    one = '{"name": "look", "arguments": {"a": 1}}'
    for text in (one, f"[{one}]"):
        (got,) = share_gpt_messages([{"from": "function_call", "value": text}], "f")
        function = {"name": "look", "arguments": {"a": 1}}
        assert got["tool_calls"] == [{"type": "function", "function": function}]
        assert (got["role"], got["content"]) == ("assistant", None)


def test_messages_stay() -> None:
    messages: list[Any] = [{"role": "user", "content": "x", "from": None}]
    assert share_gpt_messages(messages, "f") == messages


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x", "field 'conversations' is a string, expected an array"),
        ([], "field 'conversations' is an empty array"),
        (["x"], "message 1 is a string, expected an object with 'from' and 'value'"),
        ([{"from": "narrator", "value": "x"}], "'from' is 'narrator', expected one of system, hum"),
        ([{"value": "x"}], "message 1: 'from' is absent"),
        ([{"from": None, "value": "x"}], "message 1: 'from' is null"),
        ([{"from": "gpt"}], "message 1: 'value' is absent"),
        ([{"from": "gpt", "value": None}], "message 1: 'value' is null"),
        ([{"from": "function_call", "value": "look()"}], "the function call is not JSON"),
        ([{"from": "function_call", "value": "[]"}], "the function call is an empty array"),
        ([{"from": "function_call", "value": "{}"}], "a function call is an object, expected its"),
    ],
)
def test_refused(value: object, message: str) -> None:
    with pytest.raises(DataError, match=f"^f, line 3.*{message}"):
        share_gpt_messages(value, "f, line 3")
