"""Chat templates: render messages as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from edgezo_runtime.data.chat.messages import Message, Tools, content_of
from edgezo_runtime.data.template import check_text
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import BundleError, DataError, printable

if TYPE_CHECKING:
    from jinja2 import Template

    from edgezo_runtime.data.chat.sandbox import ChatEnvironment

_GENERATION = re.compile(r"{%[-+]?\s*generation\b")
_WIDEST_INDENT = 32
_LONGEST_FORM = 1000


class ChatTemplate:
    """A chat template in a Jinja sandbox: templates come with models and are not trusted.

    The variables are those of Hugging Face templates: `messages`, `tools`, `documents`,
    `add_generation_prompt`, `bos_token`, `eos_token`, `pad_token`, `unk_token`, and the functions
    `raise_exception` and `strftime_now`.

    Attributes:
        source: text of the template.
        marks_generation: True if it has `{% generation %}`, around what the assistant writes.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Compile the tokenizer's chat template.

        Raises:
            BundleError: there is no template, or it is not valid Jinja.
        """
        if tokenizer.chat_template is None:
            raise BundleError(
                "the bundle has no chat template, so messages cannot be read; give rows with "
                "'prompt' and 'completion', give a prompt as plain text, or export a chat model"
            )
        self.source = tokenizer.chat_template
        self.marks_generation = _GENERATION.search(self.source) is not None
        self._template, self._environment = _compile(self.source)
        self._tokens = {
            "bos_token": tokenizer.token_text(tokenizer.bos_id),
            "eos_token": tokenizer.token_text(next(iter(tokenizer.eos_ids), None)),
            "pad_token": tokenizer.token_text(tokenizer.pad_id),
            "unk_token": tokenizer.token_text(tokenizer.unk_id),
        }

    def render(
        self,
        messages: Sequence[Message],
        where: str,
        *,
        tools: Tools | None = None,
        generation_prompt: bool = False,
        marks: tuple[str, str] = ("", ""),
    ) -> str:
        """Render a conversation as one text.

        Args:
            messages: messages that `check_turns` returns.
            where: file and line, for the message.
            tools: descriptions of the tools that the assistant may call.
            generation_prompt: end with the text after which the assistant answers.
            marks: texts to write before and behind what the template marks as the assistant's.

        Returns:
            The text, special tokens included.

        Raises:
            DataError: the template refuses the conversation.
        """
        self._environment.allowance.begin(
            sum(map(_size, messages)) + (_size(tools) if tools else 0)
        )
        self._environment.marks = marks
        try:
            return check_text(
                self._template.render(
                    messages=messages,
                    tools=tools,
                    documents=None,
                    add_generation_prompt=generation_prompt,
                    **self._tokens,
                ),
                "the text of the chat template",
                where,
            )
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a template can raise any error
            raise DataError(
                f"{where}: the chat template refuses the messages: {printable(error, 200)}"
            ) from error

    def with_contents(
        self, messages: Sequence[Message], where: str, *, tools: Tools | None = None
    ) -> Sequence[Message]:
        """Put an empty text in place of a content of None, if the template does not expect None.

        Some templates tell tool calls by a content of None. Others add the content to a text, which
        is an error, or write the word None.

        Args:
            messages: messages that `check_turns` returns.
            where: file and line, for the message.
            tools: as in `render`.
        """
        if all(message["content"] is not None for message in messages):
            return messages
        filled = [{**message, "content": content_of(message)} for message in messages]
        try:
            text = self.render(messages, where, tools=tools)
        except DataError:
            return filled
        try:
            plain = self.render(filled, where, tools=tools)
        except DataError:
            return messages
        return filled if text.count("None") > plain.count("None") else messages


def _size(value: object) -> int:
    """Count the characters of a value's texts."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0


def _compile(source: str) -> tuple[Template, ChatEnvironment]:
    from jinja2 import TemplateSyntaxError

    from edgezo_runtime.data.chat.sandbox import ChatEnvironment

    environment = ChatEnvironment()
    environment.add_filter("tojson", _to_json)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _Now()
    try:
        return environment.from_string(source), environment
    except TemplateSyntaxError as error:
        raise BundleError(
            f"chat template, line {error.lineno}: {printable(error.message, 200)}; "
            f"export the model again"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # jinja2 and Python's compiler share no error class
        raise BundleError(
            f"chat template: {type(error).__name__}: {printable(error, 200)}; "
            f"export the model again"
        ) from error


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


class _Now:
    """The function `strftime_now`: the time stands still, since renderings are compared."""

    def __init__(self) -> None:
        self._now = datetime.now()

    def __call__(self, form: str) -> str:
        if len(form) > _LONGEST_FORM:  # the result may be 256 times as long
            raise ValueError(f"strftime_now: a form of {len(form)} characters")
        return self._now.strftime(form)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return plain JSON, as in Hugging Face templates; jinja2's own filter escapes HTML."""
    if indent is not None and (type(indent) is not int or not 0 <= indent <= _WIDEST_INDENT):
        raise ValueError(f"tojson: an indent of {str(indent)[:20]}")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
