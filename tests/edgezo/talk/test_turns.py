from __future__ import annotations

import pytest

from edgezo.talk.turns import Message, fit_turns
from edgezo_runtime.errors import UsageError


def said(*texts: str) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[text[0]], "content": text} for text in texts]


def letters(messages: list[Message]) -> list[int]:
    return [ord(letter) for message in messages for letter in message["content"]]


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (20, ["sys", "u1", "a1", "u22", "a2", "u3"]),
        (14, ["sys", "u1", "a1", "u22", "a2", "u3"]),
        (13, ["sys", "u22", "a2", "u3"]),
        (9, ["sys", "u3"]),
        (5, ["sys", "u3"]),
    ],
)
def test_the_oldest_turns_are_left_out(most: int, kept: list[str]) -> None:
    prompt, shown = fit_turns(said("sys", "u1", "a1", "u22", "a2", "u3"), letters, most)
    assert [message["content"] for message in shown] == kept
    assert len(prompt) == len("".join(kept)) <= most


def test_a_last_turn_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has 5 tokens .* room for 4"):
        fit_turns(said("sys", "u1", "a1", "u3"), letters, 4)
