"""What rows say, by their fields."""

from __future__ import annotations

import pytest

from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.row_content import Conversation, Pair, read_content, recognise, used_fields
from edgezo_runtime.errors import DataError


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"messages": [], "text": ""}, "messages"),
        ({"prompt": "", "completion": ""}, "prompt"),
        ({"instruction": "", "input": "", "output": ""}, "instruction"),
        ({"text": "", "prompt": ""}, "text"),
        ({"text": "", "messages": None, "prompt": None, "completion": ""}, "text"),
        ({"conversations": [], "system": "x", "text": ""}, "conversations"),
    ],
)
def test_recognise(fields: dict[str, object], kind: str) -> None:
    assert recognise(Row(fields, 1, "f, line 1")) == kind


def test_unknown_row_names_its_fields() -> None:
    with pytest.raises(DataError, match="f, line 1: the row has 'sentence', 'label', expected one"):
        recognise(Row({"sentence": "", "label": 1}, 1, "f, line 1"))
    with pytest.raises(DataError, match="the row has no fields"):
        recognise(Row({}, 1, "f, line 1"))


def row(**fields: object) -> Row:
    return Row(fields, 1, "f, line 1")


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def test_prompt_and_completion_of_messages() -> None:
    """The turns of the prompt are not scored, as in TRL."""
    found = read_content(
        row(prompt=[USER, ANSWER, USER], completion=[ANSWER], tools=[{}]), "prompt", chat=True
    )
    assert found == Conversation([USER, {**ANSWER, "weight": 0}, USER, ANSWER], [{}])
    text = read_content(row(prompt="q", completion="a"), "prompt", chat=True)
    assert text == Pair("q", "a")
    assert used_fields("prompt", found, chat=True) >= {"tools", "system"}
    assert used_fields("prompt", text, chat=True) == {"prompt", "completion"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": [USER], "completion": "a"}, "'completion' is a string and the other one an ar"),
        (
            {"prompt": "q", "completion": [ANSWER]},
            "'prompt' is a string and the other one an array",
        ),
        ({"prompt": [], "completion": [ANSWER]}, "field 'prompt' is an empty array"),
        ({"prompt": [USER], "completion": [{"role": "user"}]}, "message 1: 'content' is absent"),
        ({"prompt": [ANSWER], "completion": [USER]}, "every message of the assistant has weight 0"),
    ],
)
def test_messages_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"f, line 1.*{message}"):
        read_content(row(**fields), "prompt", chat=True)


def test_system_and_history() -> None:
    fields = {"instruction": "q", "output": "a", "history": [["x", "y"]], "system": "s"}
    found = read_content(row(**fields), "instruction", chat=True)
    roles = ["system", "user", "assistant", "user", "assistant"]
    assert isinstance(found, Conversation)
    assert [message["role"] for message in found.messages] == roles
    assert [message["content"] for message in found.messages] == ["s", "x", "y", "q", "a"]
    assert read_content(row(**fields), "instruction", chat=False) == Pair("q\n", "a")
    with pytest.raises(DataError, match="field 'history': expected an array of pairs"):
        read_content(row(**{**fields, "history": [["x"]]}), "instruction", chat=True)


def test_two_system_texts() -> None:
    system = {"role": "system", "content": "s"}
    same = read_content(row(messages=[system, USER, ANSWER], system="s"), "messages", chat=True)
    assert isinstance(same, Conversation)
    assert same.messages == [system, USER, ANSWER]
    with pytest.raises(DataError, match="another system text; remove one"):
        read_content(row(messages=[system, USER, ANSWER], system="t"), "messages", chat=True)


@pytest.mark.parametrize("chat", [True, False])
def test_dollys_rows_are_alpacas_with_other_names(chat: bool) -> None:
    dolly = row(instruction="q", context="about x", response="a", category="open_qa")
    alpaca = row(instruction="q", input="about x", output="a")
    assert recognise(dolly) == "response"
    found = read_content(dolly, "response", chat=chat)
    assert found == read_content(alpaca, "instruction", chat=chat)
    used = used_fields("response", found, chat=chat)
    assert used >= {"instruction", "context", "response"}
    assert not used & {"input", "output", "category"}
    both = row(instruction="q", context="", response="b", output="a")
    assert recognise(both) == "instruction"
