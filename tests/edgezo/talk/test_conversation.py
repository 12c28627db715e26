"""What a conversation remembers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgezo.talk.conversation import Conversation
from edgezo.talk.voice import Voice, fixed


@pytest.mark.parametrize("chats", [True, False])
def test_an_answer_that_fails_brings_the_last_one_back(chats: bool) -> None:
    speaker: Any = SimpleNamespace(voices={"plain": Voice("plain", fixed({}))}, chats=chats)
    said = Conversation(speaker, "plain")
    said.note("one ", "first ")
    said.note("two ", "second")
    messages, text = list(said.messages), said.text

    def fail() -> None:
        with said.taking_back() as line:
            assert line == "two "
            assert said.messages == messages[:2]
            assert said.text == ("" if chats else "one first ")
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert (said.messages, said.text) == (messages, text)
    with said.taking_back() as line:
        said.note(line, "other")
    assert [message["content"] for message in said.messages[-2:]] == ["two ", "other"]
    assert said.text == ("" if chats else "one first two other")
