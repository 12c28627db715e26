"""The room that a model has for an answer behind its prompt."""

from __future__ import annotations

from edgezo_runtime.errors import UsageError


def answer_room(max_seq: int, max_new_tokens: int) -> int:
    """Compute the tokens of the longest prompt that leaves room for an answer.

    Args:
        max_seq: tokens of the longest sequence that the model takes.
        max_new_tokens: tokens of the longest answer.
    Raises:
        UsageError: there is no room for a prompt.
    """
    room = max_seq - max_new_tokens
    if room < 1:
        raise UsageError(
            f"`max_new_tokens` {max_new_tokens}: the model takes {max_seq} in all, prompt and new "
            f"tokens; set a smaller number"
        )
    return room
