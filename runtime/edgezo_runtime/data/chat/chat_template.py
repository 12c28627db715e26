"""Conversations: the bundle's chat template, and which characters the assistant wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from edgezo_runtime.data.template import check_text, kind_of
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import BundleError, DataError, printable

if TYPE_CHECKING:
    from jinja2 import Template

    from edgezo_runtime.data.chat.allowance import Allowance

Message = Mapping[str, Any]
Span = tuple[int, int]

_WIDEST_INDENT = 32
_LONGEST_FORM = 1000


class ChatTemplate:
    """A chat template in a Jinja sandbox: it comes with the model, so it is not trusted.

    Variables are those of Hugging Face templates: `messages`, `add_generation_prompt`,
    `bos_token`, `eos_token`, `pad_token`, `unk_token`, and the functions `raise_exception` and
    `strftime_now`.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Compile the tokenizer's chat template.

        Raises:
            BundleError: there is none, or it is not valid Jinja.
        """
        if tokenizer.chat_template is None:
            raise BundleError(
                "the bundle has no chat template, so messages cannot be read; give rows as "
                "'prompt' and 'completion', a prompt as plain text, or export a chat model"
            )
        self._template, self._allowance = _compile(tokenizer.chat_template)
        self._tokens = {
            "bos_token": tokenizer.token_text(tokenizer.bos_id),
            "eos_token": tokenizer.token_text(next(iter(tokenizer.eos_ids), None)),
            "pad_token": tokenizer.token_text(tokenizer.pad_id),
            "unk_token": tokenizer.token_text(tokenizer.unk_id),
        }

    def render(self, messages: Sequence[Message], where: str, *, ask: bool = False) -> str:
        """Write a conversation as one text.

        Args:
            messages: what `check_messages` returned.
            where: file and line, for the message.
            ask: end with the words that make the assistant speak.

        Returns:
            The text, special tokens included.

        Raises:
            DataError: the template refuses the conversation.
        """
        self._allowance.begin(sum(len(str(message["content"])) for message in messages))
        try:
            return check_text(
                self._template.render(messages=messages, add_generation_prompt=ask, **self._tokens),
                "the text of the chat template",
                where,
            )
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a template can make any error happen
            raise DataError(
                f"{where}: the chat template refuses the messages: {printable(error, 200)}"
            ) from error

    def assistant_spans(self, messages: Sequence[Message], where: str) -> tuple[str, list[Span]]:
        """Write a conversation as one text and find what the assistant wrote in it.

        A turn reaches from the end of the text that asks for it to the end of its end mark. Where
        a template writes earlier turns differently once later ones follow (it drops their
        thoughts, say), the turn's content is looked up in the text instead, and only that counts.

        Args:
            messages: what `check_messages` returned.
            where: file and line, for the message.

        Returns:
            The text, and a span of characters [start, end) for each assistant turn.

        Raises:
            DataError: the template refuses the conversation, or a turn is not in the text.
        """
        text = self.render(messages, where)
        spans: list[Span] = []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                cursor = spans[-1][1] if spans else 0
                spans.append(self._span(text, messages, index, cursor, where))
        return text, spans

    def _span(
        self, text: str, messages: Sequence[Message], index: int, cursor: int, where: str
    ) -> Span:
        content = str(messages[index]["content"]).strip()
        asked = self.render(messages[:index], where, ask=True) if index else ""
        start = len(asked) if asked and text.startswith(asked) else text.find(content, cursor)
        found = text.find(content, max(start, 0))
        if start < cursor or found < 0:
            raise DataError(
                f"{where}: the chat template does not show message {index + 1} (assistant) as it "
                "is; give the row as 'prompt' and 'completion'"
            )
        told = self.render(messages[: index + 1], where).rstrip()
        end = len(told) if text.startswith(told) else 0
        return start, max(end, found + len(content))


def check_messages(value: object, where: str) -> list[Message]:
    """Check the value of a `messages` field.

    Args:
        value: from the row.
        where: file and line, for the message.

    Returns:
        The messages.

    Raises:
        DataError: as `check_turns`, or there is no turn of the assistant, or an empty one.
    """
    messages = check_turns(value, where)
    turns = [message for message in messages if message["role"] == "assistant"]
    if not turns:
        raise DataError(
            f"{where}: no message has the role 'assistant', so there is nothing to learn; "
            "add the answer"
        )
    if any(not message["content"].strip() for message in turns):
        raise DataError(f"{where}: a message of the assistant is empty; fill it or remove the row")
    return messages


def check_turns(value: object, where: str) -> list[Message]:
    """Check the shape of a conversation.

    Args:
        value: from a row or an app.
        where: file and line, for the message.

    Returns:
        The messages.

    Raises:
        DataError: not an array of objects with a `role` and a `content` that are text.
    """
    if not isinstance(value, list) or not value:
        found = "an empty array" if value == [] else kind_of(value)
        raise DataError(f"{where}: field 'messages' is {found}, expected an array of messages")
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise DataError(
                f"{where}: message {number} is {kind_of(message)}, "
                "expected an object with 'role' and 'content'"
            )
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                found = kind_of(message[key]) if key in message else "missing"
                raise DataError(f"{where}: message {number}: '{key}' is {found}, expected a string")
            check_text(message[key], f"message {number}", where)
    return value


def _compile(source: str) -> tuple[Template, Allowance]:
    from jinja2 import TemplateSyntaxError

    from edgezo_runtime.data.chat.sandbox import ChatEnvironment

    environment = ChatEnvironment()
    environment.add_filter("tojson", _to_json)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(source), environment.allowance
    except TemplateSyntaxError as error:
        raise BundleError(
            f"chat template, line {error.lineno}: {printable(error.message, 200)}; "
            f"export the model again"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # jinja2 and Python's compiler have no common class for these
        raise BundleError(
            f"chat template: {type(error).__name__}: {printable(error, 200)}; "
            f"export the model again"
        ) from error


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    if len(form) > _LONGEST_FORM:  # the result may be 256 times as long
        raise ValueError(f"strftime_now: a form of {len(form)} characters")
    return datetime.now().strftime(form)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON, as Hugging Face has it; jinja2's own filter escapes HTML."""
    if indent is not None and (type(indent) is not int or not 0 <= indent <= _WIDEST_INDENT):
        raise ValueError(f"tojson: an indent of {str(indent)[:20]}")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
