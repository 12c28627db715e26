"""Prompts of apps: a text, a row, a conversation."""

from __future__ import annotations

from typing import Any

import pytest

from edgezo_runtime.data.prompts import prompt_tokens
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.errors import BundleError, DataError, UsageError
from tests.runtime.tiny_tokenizer import BOS, CHAT, byte_tokenizer

TOKENIZER = byte_tokenizer()
CHATTY = byte_tokenizer(chat_template=CHAT)
TURN = {"role": "user", "content": "the question"}


def tokens_of(prompt: Any, most: int = 64, **given: Any) -> list[int]:
    settings = {"tokenizer": TOKENIZER, "template": "{q} It was", "max_seq": 64, **given}
    return prompt_tokens(RowReader(**settings), prompt, most)


def test_a_text_is_taken_as_it_is() -> None:
    assert tokens_of("the film") == TOKENIZER.encode("the film", add_special=True)
    found = tokens_of("the film", tokenizer=byte_tokenizer(add_bos=True))
    assert found == [BOS, *TOKENIZER.encode("the film", add_special=False)]
    assert len(tokens_of("story " * 30, most=8)) > 8  # texts are not truncated


def test_a_row_fills_the_template() -> None:
    assert TOKENIZER.decode(tokens_of({"q": "the film", "other": 3})) == "the film It was"
    short = tokens_of({"q": "story " * 30}, most=8)
    assert len(short) == 8
    assert TOKENIZER.decode(short).endswith("story It was")


def test_a_conversation_ends_where_the_assistant_answers() -> None:
    found = CHATTY.decode(tokens_of([TURN], tokenizer=CHATTY), skip_special=False)
    assert found == "<user>the question</s>\n<assistant>"
    more = [TURN, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "No"}]
    found = CHATTY.decode(tokens_of(more, tokenizer=CHATTY), skip_special=False)
    assert found.endswith("<assistant>Yes</s>\n<user>No</s>\n<assistant>")


def test_a_text_that_begins_with_bos_gets_no_second(caplog: pytest.LogCaptureFixture) -> None:
    starting = byte_tokenizer(add_bos=True)
    found = tokens_of("<s>the film", tokenizer=starting)
    assert found == [BOS, *TOKENIZER.encode("the film", add_special=False)]
    assert "begins with the tokenizer's first token" in caplog.text


def test_a_conversation_may_have_tools_and_calls() -> None:
    source = CHAT.replace("{% for", "{{ tools | length if tools }}{% for", 1)
    tokenizer = byte_tokenizer(chat_template=source)
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    turns = [TURN, call, {"role": "tool", "content": "good"}]
    row = {"messages": turns, "tools": [{"name": "f"}]}
    found = tokenizer.decode(tokens_of(row, tokenizer=tokenizer, template=None), skip_special=False)
    assert found == "1<user>the question</s>\n<assistant></s>\n<tool>good</s>\n<assistant>"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": "s"}, TURN]},
        {"messages": [TURN], "system": "s"},
        {"conversations": [{"from": "human", "value": TURN["content"]}], "system": "s"},
        {"prompt": [TURN], "system": "s", "completion": None, "messages": None},
    ],
)
def test_rows_of_conversations(row: dict[str, Any]) -> None:
    chat = {"tokenizer": CHATTY, "template": None}
    expected = tokens_of([{"role": "system", "content": "s"}, TURN], **chat)
    assert tokens_of(row, **chat) == expected


@pytest.mark.parametrize(
    ("prompt", "given", "error", "message"),
    [
        (
            {"q": "a"},
            {"template": None},
            UsageError,
            "a row has no prompt without a template; give",
        ),
        ({"s": "a"}, {}, DataError, "prompt: no field 'q'"),
        (3, {}, UsageError, "prompt: int given; expected a text, a row, or a list of messages"),
        ([TURN, "b"], {"tokenizer": CHATTY}, UsageError, "prompt: list given; expected a text"),
        ([], {"tokenizer": CHATTY}, DataError, "'messages' is an empty array"),
        ([{"role": "user"}], {"tokenizer": CHATTY}, DataError, "message 1: 'content' is absent"),
        ([TURN], {}, BundleError, "has no chat template"),
        ("\ud800", {}, DataError, "prompt: the text has half of a surrogate pair"),
        (
            [TURN, {"role": "assistant", "content": "Yes"}],
            {"tokenizer": CHATTY},
            DataError,
            "the last message is the assistant's; end with a message of the user",
        ),
    ],
)
def test_prompts_that_make_no_sense_are_refused(
    prompt: Any, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tokens_of(prompt, **given)
