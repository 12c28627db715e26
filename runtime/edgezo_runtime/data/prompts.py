"""Prompts that an app gives a model: a text, a row, or a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.messages import check_turns
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.template import Template, check_text
from edgezo_runtime.data.truncation import truncate_prompt
from edgezo_runtime.errors import DataError, UsageError

Prompt = str | Fields | Sequence[Fields]


def prompt_tokens(reader: RowReader, prompt: Prompt, most: int) -> list[int]:
    """Tokenize a prompt.

    Args:
        reader: has the tokenizer and the template.
        prompt: a text, used unchanged; a row, whose fields fill the template; or messages with
            role and content, the last one not the assistant's.
        most: largest number of tokens of a row's prompt; a longer one is truncated as in training.
    Raises:
        UsageError: the prompt is a row and there is no template, or it has another type.
        DataError: the row lacks a field, the messages are not a conversation, the last message is
            the assistant's, or a text has no UTF-8 form.
        BundleError: the prompt is a list of messages and the bundle has no usable chat template.
    """
    tokenizer = reader.tokenizer
    if isinstance(prompt, str):
        return tokenizer.encode(check_text(prompt, "the text", "prompt"), add_special=True)
    if isinstance(prompt, Mapping):
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
    messages = check_turns(turns, "prompt")
    if messages[-1]["role"] == "assistant":
        raise DataError(
            "prompt: the last message is the assistant's; end with a message of the user"
        )
    text = ChatTemplate(tokenizer).render(messages, "prompt", generation_prompt=True)
    return tokenizer.encode(text, add_special=False)
