"""Chat templates: render messages as text, and find the assistant's characters in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from edgezo_runtime.data.chat.messages import Message
from edgezo_runtime.data.template import check_text
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import BundleError, DataError, printable

if TYPE_CHECKING:
    from jinja2 import Template

    from edgezo_runtime.data.chat.allowance import Allowance

Span = tuple[int, int]

_WIDEST_INDENT = 32
_LONGEST_FORM = 1000


class ChatTemplate:
    """A chat template in a Jinja sandbox: templates come with models and are not trusted.

    The variables are those of Hugging Face templates: `messages`, `add_generation_prompt`,
    `bos_token`, `eos_token`, `pad_token`, `unk_token`, and the functions `raise_exception` and
    `strftime_now`.
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
        self._template, self._allowance = _compile(tokenizer.chat_template)
        self._tokens = {
            "bos_token": tokenizer.token_text(tokenizer.bos_id),
            "eos_token": tokenizer.token_text(next(iter(tokenizer.eos_ids), None)),
            "pad_token": tokenizer.token_text(tokenizer.pad_id),
            "unk_token": tokenizer.token_text(tokenizer.unk_id),
        }

    def render(
        self, messages: Sequence[Message], where: str, *, generation_prompt: bool = False
    ) -> str:
        """Render a conversation as one text.

        Args:
            messages: messages that `check_turns` accepts.
            where: file and line, for the message.
            generation_prompt: end with the text after which the assistant answers.

        Returns:
            The text, special tokens included.

        Raises:
            DataError: the template refuses the conversation.
        """
        self._allowance.begin(sum(len(str(message["content"])) for message in messages))
        try:
            return check_text(
                self._template.render(
                    messages=messages, add_generation_prompt=generation_prompt, **self._tokens
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

    def assistant_spans(self, messages: Sequence[Message], where: str) -> tuple[str, list[Span]]:
        """Render a conversation as one text and find the assistant's turns in it.

        A turn begins after the generation prompt and ends with its end mark. Some templates render
        a turn differently when later turns follow; for example, they drop its reasoning. Then the
        content of the turn is searched in the text, and only the content counts.

        Args:
            messages: messages that `check_messages` accepts.
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
        before = self.render(messages[:index], where, generation_prompt=True) if index else ""
        start = len(before) if before and text.startswith(before) else text.find(content, cursor)
        found = text.find(content, max(start, 0))
        if start < cursor or found < 0:
            raise DataError(
                f"{where}: the chat template does not show message {index + 1} (assistant) "
                "unchanged; give the row as 'prompt' and 'completion'"
            )
        through = self.render(messages[: index + 1], where).rstrip()
        end = len(through) if text.startswith(through) else 0
        return start, max(end, found + len(content))


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
    except Exception as error:  # jinja2 and Python's compiler share no error class
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
