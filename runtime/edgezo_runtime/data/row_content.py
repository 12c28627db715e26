"""What a row without label words says: a conversation, a prompt with its completion, or a text.

Files spell the same thing in many ways. This module is the only one that knows the spellings; what
turns contents into tokens knows these three forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from edgezo_runtime.data.chat.messages import (
    Message,
    Tools,
    check_messages,
    check_tools,
    check_turns,
)
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.share_gpt import share_gpt_messages
from edgezo_runtime.data.template import check_text, kind_of, list_fields, text_field
from edgezo_runtime.errors import DataError

RowKind = Literal["messages", "conversations", "prompt", "instruction", "response", "text"]
"""Kinds of rows without a template, in the order in which they are tried."""

ROW_FIELDS: dict[RowKind, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
    "response": ("instruction", "response"),
    "text": ("text",),
}

_FURTHER: dict[RowKind, str] = {"instruction": "input", "response": "context"}
"""What the instruction is about, of instructions."""

_OF_CONVERSATIONS = ("tools", "system")

KNOWN_FIELDS = frozenset(
    {name for names in ROW_FIELDS.values() for name in names}
    | {*_FURTHER.values(), "history", *_OF_CONVERSATIONS}
)
"""Fields that some kind of row reads."""


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
        The first kind in `ROW_FIELDS` all of whose fields the row has; a null is none.

    Raises:
        DataError: none fits.
    """
    fields = row.fields
    for kind, names in ROW_FIELDS.items():
        for name in names:
            if fields.get(name) is None:
                break
        else:
            return kind
    lack = ""
    for names in ROW_FIELDS.values():
        present = [name for name in names if row.fields.get(name) is not None]
        if present:
            name = next(name for name in names if name not in present)
            lack = f"field '{name}' is null; " if name in row.fields else f"no field '{name}'; "
            break
    known = "; ".join(" and ".join(f"'{name}'" for name in names) for names in ROW_FIELDS.values())
    raise DataError(
        f"{row.where}: {lack}the row has {list_fields(row.fields)}, expected one of: {known}; for "
        "other fields give `template` '{field} ...', and one word per class in `labels` to classify"
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
        return _conversation(row, row.fields.get("messages"))
    if kind == "conversations":
        return _conversation(row, share_gpt_messages(row.fields.get(kind), row.where))
    if kind == "text":
        return Text(_filled(row.fields, "text", row.where))
    if kind in _FURTHER:
        return _instruction(row, kind, chat)
    if isinstance(row.fields.get("prompt"), list) or isinstance(row.fields.get("completion"), list):
        return _conversation(row, _prompt_and_completion(row))
    prompt = text_field(row.fields, "prompt", row.where)
    return Pair(prompt, _filled(row.fields, "completion", row.where))


def used_fields(kind: RowKind, content: RowContent, *, chat: bool) -> frozenset[str]:
    """Return the fields that make the content of a row of some kind."""
    return _used_fields(kind, isinstance(content, Conversation), chat)


@cache
def _used_fields(kind: RowKind, conversation: bool, chat: bool) -> frozenset[str]:
    names = set(ROW_FIELDS[kind])
    if kind in _FURTHER:
        names |= {_FURTHER[kind], "history"} if chat else {_FURTHER[kind]}
    names |= set(_OF_CONVERSATIONS) if conversation else set()
    return frozenset(names)


def asked_messages(fields: Mapping[str, Any], where: str) -> object:
    """Return the messages of a row that asks for an answer, unchecked; None if it has none.

    Args:
        fields: fields of the row.
        where: its place, for messages.

    Raises:
        DataError: the messages are not those of ShareGPT, or have two system texts.
    """
    value: object = None
    if fields.get("messages") is not None:
        value = fields["messages"]
    elif fields.get("conversations") is not None:
        value = share_gpt_messages(fields["conversations"], where)
    elif isinstance(fields.get("prompt"), list):
        value = fields["prompt"]
    return None if value is None else _after_system(fields, value, where)


def _conversation(row: Row, value: object) -> Conversation:
    """Make a conversation of messages, and of the fields `system` and `tools` of the row."""
    tools = check_tools(row.fields.get("tools"), row.where)
    value = _after_system(row.fields, value, row.where)
    return Conversation(check_messages(value, row.where), tools)


def _after_system(fields: Mapping[str, Any], value: object, where: str) -> object:
    """Put the field `system` before messages."""
    if fields.get("system") in (None, "") or not isinstance(value, list):
        return value
    text = text_field(fields, "system", where)
    first = value[0] if value else None
    if isinstance(first, dict) and first.get("role") == "system":
        if first.get("content") == text:
            return value
        raise DataError(
            f"{where}: the row has a field 'system', and its first message is another system text; "
            "remove one of them"
        )
    return [{"role": "system", "content": text}, *value]


def _prompt_and_completion(row: Row) -> list[Any]:
    """Return the messages of both; those of the prompt are not scored.

    Raises:
        DataError: one of them is no array of messages.
    """
    parts: list[list[Message]] = []
    for name in ("prompt", "completion"):
        value = row.fields.get(name)
        if not isinstance(value, list):
            raise DataError(
                f"{row.where}: field '{name}' is {kind_of(value)} and the other one an array of "
                "messages; give both as messages, or both as text"
            )
        parts.append(check_turns(value, row.where, name=name))
    prompt = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in parts[0]
    ]
    return [*prompt, *parts[1]]


def _instruction(row: Row, kind: RowKind, chat: bool) -> RowContent:
    question, answer = ROW_FIELDS[kind]
    prompt = text_field(row.fields, question, row.where)
    if row.fields.get(_FURTHER[kind]):
        prompt = f"{prompt}\n\n{text_field(row.fields, _FURTHER[kind], row.where)}"
    output = _filled(row.fields, answer, row.where)
    if not chat:
        return Pair(f"{prompt}\n", output)
    pairs = [*_history(row), (prompt, output)]
    roles = ("user", "assistant")
    return _conversation(
        row,
        [
            {"role": role, "content": text}
            for pair in pairs
            for role, text in zip(roles, pair, strict=True)
        ],
    )


def _history(row: Row) -> list[tuple[str, str]]:
    """Return earlier questions and answers.

    Raises:
        DataError: the field is not an array of pairs of texts.
    """
    value = row.fields.get("history")
    if value is None:
        return []
    pairs = value if isinstance(value, list) else [value]
    for pair in pairs:
        texts = isinstance(pair, list) and len(pair) == 2
        if not texts or not all(isinstance(text, str) for text in pair):
            raise DataError(
                f"{row.where}: field 'history': expected an array of pairs, each of a question and "
                f"its answer, found {kind_of(pair)}"
            )
    return [(pair[0], pair[1]) for pair in pairs]


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
