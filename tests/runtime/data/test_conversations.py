"""Conversations as tokens: what is scored, what is cut, what is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.data.questions import make_questions, prompt_of
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError
from tests.runtime.data.chat.test_turns import (
    ASK,
    ASK_AGAIN,
    CALLS,
    NO,
    ONE,
    TWO,
    YES,
    tokenizer_of,
)
from tests.runtime.tiny_tokenizer import EOS

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"at": "string"}}}]


def read(name: str, *rows: dict[str, Any], **settings: Any) -> ExampleSet:
    return RowReader(tokenizer_of(name), **({"max_seq": 256} | settings)).take(rows)


def shown(name: str, example: Example) -> str:
    return tokenizer_of(name).decode(example.tokens.tolist(), skip_special=False)


def scored(name: str, example: Example) -> str:
    tokens = example.tokens[example.places].tolist()
    return tokenizer_of(name).decode(tokens, skip_special=False)


def names(examples: ExampleSet) -> list[tuple[str, int]]:
    return [(warning.name, warning.count) for warning in examples.warnings]


@pytest.mark.parametrize("name", ["think_open", "think_open_line"])
def test_an_answer_behind_an_opened_block_is_that_of_the_pair(name: str) -> None:
    """The answer was searched, and found in the question."""
    ask = {"role": "user", "content": "Is fire hot? Answer yes or no."}
    got = read(name, {"messages": [ask, YES]})
    (example,) = got
    assert scored(name, example) == "yes<|im_end|>"
    prompt = shown(name, example).removesuffix("yes<|im_end|>")
    tokenizer = tokenizer_of(name, eos_ids=())
    pair = {"prompt": prompt, "completion": "yes<|im_end|>"}
    (same,) = RowReader(tokenizer, max_seq=256).take([pair])
    assert example.tokens.tolist() == same.tokens.tolist()  # so their losses are the same
    assert example.places.tolist() == same.places.tolist()
    assert names(got) == [("generation-prompt", 1)]


def test_turns_without_an_end_learn_the_token_that_opens_the_next_turn() -> None:
    got = read("no_end", {"messages": TWO}, {"messages": ONE})
    assert [scored("no_end", e) for e in got] == ["\nyes<|user|>\nno<|user|>", "\nyes<|user|>"]
    (warning,) = got.warnings
    assert (warning.name, warning.count) == ("turn-end", 2)
    assert warning.message == (
        "the chat template writes no end behind the assistant's turn, so 2 rows end with "
        "'<|user|>', which opens the next turn"
    )
    plain = read("plain_words", {"messages": ONE})
    assert scored("plain_words", plain.examples[0]) == "yes</s>"
    assert plain.examples[0].tokens[-1] == EOS
    assert plain.warnings[0].message.endswith("so 1 rows end with '</s>'")
    bare = RowReader(tokenizer_of("plain_words", eos_ids=())).take([{"messages": ONE}])
    assert "no end is learned from 1 rows" in bare.warnings[0].message


@pytest.mark.parametrize(
    ("weights", "train_on", "expected"),
    [
        ({}, "all", "yes</s>no</s>"),
        ({}, "last", "no</s>"),
        ({1: 0}, "all", "no</s>"),
        ({3: 0}, "all", "yes</s>"),
        ({3: 0}, "last", "yes</s>"),
        ({1: 1, 3: 0.0}, "all", "yes</s>"),
        ({0: 0, 1: 1, 3: 1}, "all", "yes</s>no</s>"),
    ],
)
def test_turns_that_are_learned(weights: dict[int, float], train_on: str, expected: str) -> None:
    messages = [
        {**message, "weight": weights[number]} if number in weights else message
        for number, message in enumerate(TWO)
    ]
    got = read("plain", {"messages": messages}, train_on=train_on)
    assert scored("plain", got.examples[0]) == expected
    assert got.warnings == ()


def test_a_question_is_what_comes_before_the_last_answer_whatever_is_learned() -> None:
    reader = RowReader(tokenizer_of("plain"), max_seq=256)
    masked = [*TWO[:3], {**NO, "weight": 0}]
    for messages in (TWO, masked):
        (question,) = make_questions(reader, [{"messages": messages}]).questions
        text = reader.tokenizer.decode(question.prompt, skip_special=False)
        assert text.endswith("<user>Sure?</s>\n<assistant>")
        assert question.answers == ("no",)
    with pytest.raises(DataError, match="row 1: the assistant's last message has tool calls only"):
        make_questions(RowReader(tokenizer_of("qwen")), [{"messages": CALLS[:2]}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": 0}, "every message of the assistant has weight 0, so there is nothing to lea"),
        ({"weight": 0.5}, "message 2: 'weight' is the number 0.5, expected 0 or 1"),
        ({"weight": "1"}, "message 2: 'weight' is a string, expected 0 or 1"),
        ({"tool_calls": "look"}, "message 2: 'tool_calls' is a string, expected an array of obj"),
        ({"tool_calls": ["look"]}, "'tool_calls' is an array of other things"),
        ({"content": None}, "message 2: 'content' is null, expected a string"),
        ({"content": 3, "tool_calls": [{}]}, "message 2: 'content' is the number 3, expected a s"),
        ({"content": "", "tool_calls": []}, "a message of the assistant is empty"),
    ],
)
def test_messages_that_are_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("plain", {"messages": [ASK, {**YES, **changes}]})


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({"name": "look"}, "field 'tools' is an object, expected an array of objects"),
        (["look"], "field 'tools' is an array of other things"),
        ("[{", "field 'tools': not JSON"),
        ('"look"', "field 'tools' is a string"),
    ],
)
def test_tools_that_are_wrong(tools: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read("no_end", {"messages": ONE, "tools": tools})


def test_tools_go_to_the_template() -> None:
    """They were dropped: rows had the same loss with and without them."""
    row = {"messages": ONE, "tools": TOOLS}
    got = read("no_end", row, {**row, "tools": json.dumps(TOOLS)}, {"messages": ONE})
    assert json.dumps(TOOLS) in shown("no_end", got.examples[0])
    assert got.examples[0].tokens.tolist() == got.examples[1].tokens.tolist()
    assert "look" not in shown("no_end", got.examples[2])
    for nothing in ([], "", None, "[]"):
        same = read("no_end", {"messages": ONE, "tools": nothing})
        assert same.examples[0].tokens.tolist() == got.examples[2].tokens.tolist()


def test_arguments_of_calls_are_passed_on_as_they_are() -> None:
    call = {"function": {"name": "look", "arguments": '{"at":  "yes"}'}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    got = read("qwen", {"messages": [ASK, asked]})
    assert '"arguments": {"at":  "yes"}}' in scored("qwen", got.examples[0])


def test_what_the_template_does_not_use_is_told_with_a_count() -> None:
    named = [{**ASK, "name": "Ann", "id": None}, YES]
    rows = [{"messages": named, "tools": TOOLS}, {"messages": named}, {"messages": ONE}]
    got = read("plain", *rows)
    assert names(got) == [("unused-tools", 1), ("unused-message-key", 2)]
    assert got.warnings[1].message == (
        "2 rows have messages with 'name', which the chat template does not use"
    )
    assert len({tuple(example.tokens.tolist()) for example in got}) == 1
    calls = [ASK, {**YES, "tool_calls": [{"function": {"name": "look"}}]}]
    assert names(read("plain", {"messages": calls})) == [("unused-message-key", 1)]
    assert names(read("qwen", {"messages": CALLS})) == []


# --- long rows ---

LONG = "the film" + " story" * 60 + " question"


def test_a_long_message_loses_its_middle_and_the_markup_stays() -> None:
    """The whole question was lost before any of the answer."""
    messages = [{"role": "system", "content": "good music"}, {"role": "user", "content": LONG}, YES]
    got = read("plain", {"messages": messages}, max_seq=64)
    (example,) = got
    assert got.report.longest == 64
    text = shown("plain", example)
    assert text.startswith("<system>good music</s>\n<user>the film story")
    assert text.endswith(" story question</s>\n<assistant>yes</s>")
    assert scored("plain", example) == "yes</s>"
    assert got.report.truncation.prompt_rows == 1
    assert got.report.truncation.completion_rows == 0


def test_a_long_answer_loses_its_end_and_the_end_token() -> None:
    answer = {"role": "assistant", "content": LONG}
    got = read("plain", {"messages": [ASK, answer]}, max_seq=32)
    assert got.report.longest == 32
    assert shown("plain", got.examples[0]).startswith("<user>Is it yes?</s>\n<assistant>the film")
    assert scored("plain", got.examples[0]).endswith(" story story")
    lost = got.report.truncation
    assert (lost.prompt_rows, lost.completion_rows) == (0, 1)


def test_a_long_question_and_a_long_answer_share_the_row() -> None:
    messages = [{"role": "user", "content": LONG}, {"role": "assistant", "content": LONG}]
    got = read("plain", {"messages": messages}, max_seq=40)
    (example,) = got
    assert got.report.longest == 40
    assert 18 <= len(prompt_of(example)) <= 20  # half of it
    assert " question</s>\n<assistant>the film story" in shown("plain", example)
    lost = got.report.truncation
    assert (lost.rows, lost.prompt_rows, lost.completion_rows) == (1, 1, 1)


def test_of_a_long_conversation_the_last_turns_are_lost() -> None:
    got = read("plain", {"messages": [*TWO, {"role": "user", "content": LONG}, YES]}, max_seq=64)
    assert scored("plain", got.examples[0]) == "yes</s>no</s>"
    assert got.report.truncation.completion_rows == 1
    last = read("plain", {"messages": [ASK, YES, {"role": "user", "content": LONG}, NO]},
                max_seq=64, train_on="last")  # fmt: skip
    assert scored("plain", last.examples[0]) == "no</s>"
    assert " question</s>\n<assistant>no" in shown("plain", last.examples[0])


def test_markup_that_does_not_fit_is_left_out_with_a_count() -> None:
    rows = [{"messages": ONE}, {"messages": [*[ASK] * 20, YES]}]
    got = read("plain", *rows, max_seq=32)
    assert [example.line for example in got] == [1]
    assert names(got) == [("dropped", 1)]
    with pytest.raises(DataError, match=r"all 2 rows are longer than 4 tokens.*raise `max_seq`$"):
        read("plain", *rows, max_seq=4)


def test_long_rows_are_left_out_if_so_set() -> None:
    rows = [{"messages": ONE}, {"messages": [{"role": "user", "content": LONG}, YES]}]
    got = read("plain", *rows, max_seq=32, long="drop")
    assert [(example.example_id, example.line) for example in got] == [(0, 1)]
    assert names(got) == [("dropped", 1)]
    reader = RowReader(tokenizer_of("plain"), max_seq=32, long="drop")
    found = make_questions(reader, [rows[1], rows[0]])
    assert [question.answers for question in found.questions] == [("yes",)]
    assert found.questions[0].fields == rows[0]


# --- where tokens meet ---


def test_a_token_across_the_beginning_of_a_turn_is_divided() -> None:
    """Then the prompt has the tokens that the model reads before it answers."""
    source = (
        "{% for m in messages %}{{ m.role + ': ' if m.role == 'user' else 'it was ' }}"
        "{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}it was {% endif %}"
    )
    tokenizer: TextTokenizer = tokenizer_of("plain")
    tokenizer = TextTokenizer(tokenizer.core, 0, eos_ids=(EOS,), chat_template=source)
    messages = [{"role": "user", "content": "film"}, {"role": "assistant", "content": "great"}]
    got = RowReader(tokenizer).take([{"messages": messages}])
    (example,) = got
    prompt = tokenizer.encode("user: film\nit was ", add_special=False)
    assert example.tokens[: example.places[0]].tolist() == prompt
    assert tokenizer.decode(example.tokens[example.places].tolist()) == "great"
    assert ("completion-boundary", 1) in names(got)


def test_two_questions_alike_have_their_own_answers() -> None:
    messages = [ASK, YES, ASK, YES, ASK_AGAIN, NO]
    got = read("plain", {"messages": messages})
    assert scored("plain", got.examples[0]) == "yes</s>yes</s>no</s>"
