"""Messages of a conversation: their shape, their tool calls, and which turns are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgezo_runtime.data.template import check_text, kind_of
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.typed_json import JsonShapeError, parse_json

Message = Mapping[str, Any]
Tools = list[dict[str, Any]]

_SHAPE = "expected an object with 'role' and 'content'"


def check_messages(value: object, where: str) -> list[Message]:
    """Check the value of a `messages` field.

    Args:
        value: from the row.
        where: file and line, for the message.

    Returns:
        The messages, as `check_turns` returns them.

    Raises:
        DataError: the shape is wrong, there is no message of the assistant, one of them is empty,
            or all of them have weight 0.
    """
    messages = check_turns(value, where)
    turns = [message for message in messages if message["role"] == "assistant"]
    if not turns:
        raise DataError(
            f"{where}: no message has the role 'assistant', so there is nothing to learn; "
            "add the answer"
        )
    if any(not (content_of(turn).strip() or turn.get("tool_calls")) for turn in turns):
        raise DataError(f"{where}: a message of the assistant is empty; fill it or remove the row")
    if all(turn.get("weight") == 0 for turn in turns):
        raise DataError(
            f"{where}: every message of the assistant has weight 0, so there is nothing to learn; "
            "give one of them weight 1, or remove the row"
        )
    return messages


def check_turns(value: object, where: str, *, name: str = "messages") -> list[Message]:
    """Check the shape of a conversation.

    Args:
        value: from a row or an app.
        where: file and line, for the message.
        name: of the field, for the message.

    Returns:
        The messages, with all their keys but those that are null: tables have a column for every
        key of any message. Beside tool calls the content may be null, and is then None.

    Raises:
        DataError: the value is not an array of objects with a `role` and a `content` that are text,
            or a `weight` or `tool_calls` are not what they should be.
    """
    if not isinstance(value, list) or not value:
        found = "an empty array" if value == [] else kind_of(value)
        raise DataError(f"{where}: field '{name}' is {found}, expected an array of messages")
    return [_checked(message, number, where) for number, message in enumerate(value, 1)]


def _checked(value: object, number: int, where: str) -> Message:
    if not isinstance(value, dict):
        raise DataError(f"{where}: message {number} is {kind_of(value)}, {_SHAPE}")
    message: dict[str, Any] = value
    if None in value.values():
        message = {key: part for key, part in value.items() if part is not None}
    calls = message.get("tool_calls")
    if calls is not None:
        message = _with_calls(message, calls, f"{where}: message {number}")
    for key in ("role", "content"):
        if not isinstance(message.get(key), str) and not (key == "content" and calls):
            found = kind_of(value[key]) if key in value else "absent"
            raise DataError(f"{where}: message {number}: '{key}' is {found}, expected a string")
        check_text(message[key] or "", f"message {number}", where)
    weight = message.get("weight", 1)
    if not isinstance(weight, int | float) or weight not in (0, 1):
        raise DataError(
            f"{where}: message {number}: 'weight' is {kind_of(weight)}, expected 0 or 1; 0 leaves "
            "the turn unscored"
        )
    return message


def _with_calls(message: dict[str, Any], calls: object, where: str) -> dict[str, Any]:
    """Check tool calls; no calls are left out, and with calls there is a content, maybe None.

    Raises:
        DataError: they are not an array of objects, or the content beside them is not text.
    """
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        found = "an array of other things" if isinstance(calls, list) else kind_of(calls)
        raise DataError(f"{where}: 'tool_calls' is {found}, expected an array of objects")
    if not calls:
        return {key: part for key, part in message.items() if key != "tool_calls"}
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise DataError(f"{where}: 'content' is {kind_of(content)}, expected a string or null")
    return message if "content" in message else {**message, "content": None}


def check_tools(value: object, where: str) -> Tools | None:
    """Check the value of a `tools` field.

    Args:
        value: descriptions of the tools: an array of objects, or the JSON text of one; or None.
        where: file and line, for the message.

    Returns:
        The tools; None if there are none.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = parse_json(value)
        except JsonShapeError as error:
            raise DataError(f"{where}: field 'tools': {error}; give an array of objects") from error
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        found = "an array of other things" if isinstance(value, list) else kind_of(value)
        raise DataError(f"{where}: field 'tools' is {found}, expected an array of objects")
    return value


def content_of(message: Message) -> str:
    """Return the text of a message; empty where it has only tool calls."""
    return message["content"] or ""


def assistant_turns(messages: Sequence[Message]) -> list[int]:
    """Return the indices of the assistant's messages."""
    return [index for index, message in enumerate(messages) if message["role"] == "assistant"]
