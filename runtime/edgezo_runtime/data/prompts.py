"""Prompts that an app gives a model: a text, a row, or a conversation."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.messages import Tools, check_tools, check_turns
from edgezo_runtime.data.row_content import asked_messages
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.template import Template, check_text
from edgezo_runtime.data.truncation import truncate_prompt
from edgezo_runtime.errors import DataError, UsageError

_LOG = logging.getLogger(__name__)

Prompt = str | Fields | Sequence[Fields]


def prompt_tokens(reader: RowReader, prompt: Prompt, most: int) -> list[int]:
    """Tokenize a prompt.

    Args:
        reader: has the tokenizer and the template.
        prompt: a text, used unchanged; a row, whose fields fill the template; messages with role
            and content, the last one not the assistant's; or, without a template, a row of a
            conversation: `messages`, `conversations`, or an array of messages as `prompt`, and
            maybe `tools` and `system`.
        most: largest number of tokens of a row's prompt; a longer one is truncated as in training.
    Raises:
        UsageError: the prompt is a row and there is no template, or it has another type.
        DataError: the row lacks a field, the messages are not a conversation, the last message is
            the assistant's, or a text has no UTF-8 form.
        BundleError: the prompt is a list of messages and the bundle has no usable chat template.
    """
    tokenizer = reader.tokenizer
    if isinstance(prompt, str):
        if tokenizer.writes_bos(prompt):
            _LOG.warning("the prompt begins with the tokenizer's first token; it gets no second")
        return tokenizer.encode(check_text(prompt, "the text", "prompt"), add_special=True)
    if isinstance(prompt, Mapping):
        turns = None if reader.template is not None else asked_messages(prompt, "prompt")
        if turns is not None:
            return _chat_tokens(reader, turns, check_tools(prompt.get("tools"), "prompt"))
        if reader.template is None:
            raise UsageError(
                "a row has no prompt without a template; give `template` (the tuner takes it when "
                "it is opened), or a text"
            )
        template = Template.parse(reader.template)
        values = template.values(prompt, "prompt")
        return list(truncate_prompt(template, values, tokenizer, most, "prompt").tokens)
    parts = prompt if isinstance(prompt, Sequence) else [None]
    turns = [dict(part) for part in parts if isinstance(part, Mapping)]
    if len(turns) < len(parts):
        raise UsageError(
            f"prompt: {type(prompt).__name__} given; expected a text, a row, or a list of messages "
            f"with 'role' and 'content'"
        )
    return _chat_tokens(reader, turns, None)


def _chat_tokens(reader: RowReader, turns: object, tools: Tools | None) -> list[int]:
    messages = check_turns(turns, "prompt")
    if messages[-1]["role"] == "assistant":
        raise DataError(
            "prompt: the last message is the assistant's; end with a message of the user"
        )
    template = ChatTemplate(reader.tokenizer)
    messages = list(template.with_contents(messages, "prompt", tools=tools))
    text = template.render(messages, "prompt", tools=tools, generation_prompt=True)
    return reader.tokenizer.encode(text, add_special=False)
