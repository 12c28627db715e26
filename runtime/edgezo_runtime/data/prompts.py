"""What an app has a model go on from: a text, a row, or a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgezo_runtime.data.chat.chat_template import ChatTemplate, check_turns
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.template import Template, check_text
from edgezo_runtime.data.truncation import fit_prompt
from edgezo_runtime.errors import DataError, UsageError

Prompt = str | Fields | Sequence[Fields]


def prompt_tokens(reader: RowReader, prompt: Prompt, most: int) -> list[int]:
    """Tokens of a prompt.

    Args:
        reader: knows tokenizer and template.
        prompt: a text, taken as it is; a row, whose fields the template takes; or messages with
            role and content, the last one not the assistant's.
        most: tokens that it may have; a row is cut as rows to learn from are.
    Raises:
        UsageError: a row, and there is no template; or none of the three.
        DataError: the row lacks a field, the messages are no conversation, or its last word is the
            assistant's; or a text has no UTF-8 form.
        BundleError: messages, and the bundle has no usable chat template.
    """
    tokenizer = reader.tokenizer
    if isinstance(prompt, str):
        return tokenizer.encode(check_text(prompt, "the text", "prompt"), add_special=True)
    if isinstance(prompt, Mapping):
        if reader.template is None:
            raise UsageError(
                "a row has no prompt without a template; open the tuner with one, or give a text"
            )
        template = Template.parse(reader.template)
        values = template.values(prompt, "prompt")
        return list(fit_prompt(template, values, tokenizer, most, "prompt").tokens)
    parts = prompt if isinstance(prompt, Sequence) else [None]
    turns = [dict(part) for part in parts if isinstance(part, Mapping)]
    if len(turns) < len(parts):
        raise UsageError(
            f"prompt: {type(prompt).__name__} given; expected a text, a row, or a list of messages "
            f"with 'role' and 'content'"
        )
    messages = check_turns(turns, "prompt")
    if messages[-1]["role"] == "assistant":
        raise DataError("prompt: the last message is the assistant's; end with what is asked of it")
    whole = ChatTemplate(tokenizer).render(messages, "prompt", ask=True)
    return tokenizer.encode(whole, add_special=False)
