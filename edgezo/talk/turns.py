"""Conversations that are longer than there is room for: the oldest turns are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgezo_runtime.errors import UsageError

Message = dict[str, Any]


def fit_turns(
    messages: Sequence[Message], tokens: Callable[[list[Message]], list[int]], most: int
) -> tuple[list[int], list[Message]]:
    """Leave out the oldest turns of a conversation until it fits.

    A turn is a message of the user with the answers to it. The system message stays, and so does
    the last turn.

    Args:
        messages: of the conversation.
        tokens: makes the prompt.
        most: tokens that it may have.
    Returns:
        The prompt, and the messages that it has.
    Raises:
        UsageError: the last turn alone is too long.
    """
    system = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    while True:
        shown = [*system, *rest]
        prompt = tokens(shown)
        if len(prompt) <= most:
            return prompt, shown
        later = [n for n, message in enumerate(rest) if n and message["role"] == "user"]
        if not later:
            raise UsageError(
                f"the message has {len(prompt)} tokens with what the template adds; there is room "
                f"for {most}"
            )
        rest = rest[later[0] :]
