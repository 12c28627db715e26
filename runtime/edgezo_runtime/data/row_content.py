"""What a row without label words says: a conversation, a prompt with its completion, or a text.

Files spell the same thing in many ways. This module is the only one that knows the spellings; what
turns contents into tokens knows these three forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgezo_runtime.data.chat.messages import Message, Tools, check_messages, check_tools
from edgezo_runtime.data.records import Row
from edgezo_runtime.data.template import check_text, list_fields, text_field
from edgezo_runtime.errors import DataError

RowKind = Literal["messages", "prompt", "instruction", "text"]
"""Kinds of rows without a template, in the order in which they are tried."""

ROW_FIELDS: dict[RowKind, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "text": ("text",),
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages that the chat template renders.

    Attributes:
        messages: what `check_messages` returns.
        tools: descriptions of the tools that the assistant may call; None without any.
    """

    messages: list[Message]
    tools: Tools | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and the completion that is scored, both used unchanged."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text, all tokens of which but the first are scored."""

    text: str


RowContent = Conversation | Pair | Text


def recognise(row: Row) -> RowKind:
    """Return the kind of a row without a template.

    Returns:
        The first kind in `ROW_FIELDS` all of whose fields the row has.

    Raises:
        DataError: none fits.
    """
    for kind, names in ROW_FIELDS.items():
        if all(name in row.fields for name in names):
            return kind
    known = "; ".join(" and ".join(f"'{name}'" for name in names) for names in ROW_FIELDS.values())
    raise DataError(
        f"{row.where}: the row has {list_fields(row.fields)}, expected one of: {known}; for other "
        "fields give `template` '{field} ...', and one word per class in `labels` to classify"
    )


def read_content(row: Row, kind: RowKind, *, chat: bool) -> RowContent:
    """Read what a row says.

    Args:
        row: the row.
        kind: its kind.
        chat: True if there is a chat template; instructions then become conversations.

    Raises:
        DataError: a field is missing, empty, or not what the kind expects.
    """
    if kind == "messages":
        messages = check_messages(row.fields.get("messages"), row.where)
        return Conversation(messages, check_tools(row.fields.get("tools"), row.where))
    if kind == "text":
        return Text(_filled(row.fields, "text", row.where))
    if kind == "prompt":
        prompt = text_field(row.fields, "prompt", row.where)
        return Pair(prompt, _filled(row.fields, "completion", row.where))
    return _instruction(row, chat)


def _instruction(row: Row, chat: bool) -> RowContent:
    prompt = text_field(row.fields, "instruction", row.where)
    if row.fields.get("input"):
        prompt = f"{prompt}\n\n{text_field(row.fields, 'input', row.where)}"
    output = _filled(row.fields, "output", row.where)
    if not chat:
        return Pair(f"{prompt}\n", output)
    return Conversation(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": output}]
    )


def _filled(fields: Mapping[str, Any], name: str, where: str) -> str:
    return require_filled(text_field(fields, name, where), name, where)


def require_filled(text: str, name: str, where: str) -> str:
    """Refuse a text of spaces only.

    Raises:
        DataError: it is empty.
    """
    if not check_text(text, f"field '{name}'", where).strip():
        raise DataError(f"{where}: field '{name}' is empty; fill it or remove the row")
    return text
