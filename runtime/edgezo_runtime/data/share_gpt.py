"""ShareGPT conversations: `from` and `value` in place of role and content."""

from __future__ import annotations

from typing import Any

from edgezo_runtime.data.template import kind_of
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.typed_json import JsonShapeError, parse_json

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""`from` -> role."""

_CALLS = ("function_call", "tool_call")


def share_gpt_messages(value: object, where: str) -> list[Any]:
    """Turn the value of a `conversations` field into messages.

    Messages that have `role` and `content` already stay as they are. The value of a function call
    is the JSON text of an object with `name` and `arguments`, or of an array of them.

    Args:
        value: from the row.
        where: file and line, for the message.

    Returns:
        Messages with role and content, and with their other keys; their shape is not checked.

    Raises:
        DataError: the value is not an array of objects, or a message has an unknown `from`.
    """
    if not isinstance(value, list) or not value:
        found = "an empty array" if value == [] else kind_of(value)
        raise DataError(f"{where}: field 'conversations' is {found}, expected an array of messages")
    return [_message(part, f"{where}: message {number}") for number, part in enumerate(value, 1)]


def _message(part: object, where: str) -> Any:
    if not isinstance(part, dict):
        raise DataError(f"{where} is {kind_of(part)}, expected an object with 'from' and 'value'")
    if part.get("from") is None and part.get("role") is not None:
        return part
    for name in ("from", "value"):
        if not isinstance(part.get(name), str):
            found = kind_of(part[name]) if name in part else "absent"
            raise DataError(f"{where}: '{name}' is {found}, expected a string")
    speaker, text = part["from"], part["value"]
    if speaker not in ROLES:
        known = ", ".join(ROLES)
        raise DataError(f"{where}: 'from' is {speaker!r:.40}, expected one of {known}")
    others = {name: value for name, value in part.items() if name not in ("from", "value")}
    if speaker in _CALLS:
        return {**others, "role": "assistant", "content": None, "tool_calls": _calls(text, where)}
    return {**others, "role": ROLES[speaker], "content": text}


def _calls(text: str, where: str) -> list[dict[str, Any]]:
    try:
        value = parse_json(text)
    except JsonShapeError as error:
        raise DataError(f"{where}: the function call is {error}; give its JSON") from error
    calls = value if isinstance(value, list) else [value]
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise DataError(f"{where}: a function call is {kind_of(call)}, expected its 'name'")
    if not calls:
        raise DataError(f"{where}: the function call is an empty array; name a function")
    return [{"type": "function", "function": call} for call in calls]
