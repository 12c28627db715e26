"""Replies in the form of the OpenAI API: whole answers, and parts of streamed ones."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgezo._version import CREATED_BY

if TYPE_CHECKING:
    from edgezo.talk.speaker import Counts
    from edgezo.talk.voice import Voice

FINISH = {"end": "stop", "stop": "stop", "length": "length"}
"""Why a text ended -> the API's word."""


@dataclass(frozen=True, slots=True)
class Replies:
    """Makes the objects of one answer.

    Attributes:
        model: that answers.
        chat: is it a chat?
        ident: of the answer.
        created: seconds since 1970.
    """

    model: str
    chat: bool
    ident: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish: str, counts: Counts) -> dict[str, Any]:
        """A whole answer."""
        content = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = {"index": 0, **(content if self.chat else {"text": text}), "logprobs": None}
        return {
            **self._head("chat.completion"),
            "choices": [{**choice, "finish_reason": FINISH[finish]}],
            "usage": usage(counts),
        }

    def first(self) -> dict[str, Any] | None:
        """The beginning of a streamed chat; None for a completion."""
        return self._part({"role": "assistant", "content": ""}) if self.chat else None

    def part(self, text: str) -> dict[str, Any]:
        """Newly written text."""
        return self._part({"content": text} if self.chat else text)

    def last(self, finish: str) -> dict[str, Any]:
        """The end of a streamed answer."""
        return self._part({} if self.chat else "", FINISH[finish])

    def counted(self, counts: Counts) -> dict[str, Any]:
        """The numbers of tokens, behind the end."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(counts)}

    def _part(self, delta: dict[str, Any] | str, finish: str | None = None) -> dict[str, Any]:
        own = {"delta": delta} if self.chat else {"text": delta}
        choice = {"index": 0, **own, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.ident}",
            "object": kind if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": CREATED_BY.replace(" ", "-"),
        }


def usage(counts: Counts) -> dict[str, Any]:
    """The numbers of tokens; cached ones were known from the text before."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.new,
        "total_tokens": counts.prompt + counts.new,
        "prompt_tokens_details": {"cached_tokens": counts.prompt - counts.read},
    }


def model_entry(voice: Voice) -> dict[str, Any]:
    """A model in the list of models."""
    return {
        "id": voice.name,
        "object": "model",
        "created": voice.created_s,
        "owned_by": "edgezo",
    }


def event(value: dict[str, Any] | str) -> bytes:
    """One server-sent event."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {text}\n\n".encode()
