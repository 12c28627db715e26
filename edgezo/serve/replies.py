"""Replies in the form of the OpenAI API: whole answers, and parts of streamed ones."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgezo._version import CREATED_BY

if TYPE_CHECKING:
    from edgezo.serve.token_scores import Candidate, ScoredToken
    from edgezo.talk.speaker import Counts
    from edgezo.talk.voice import Voice

Scores = Sequence["ScoredToken"] | None
"""Log-probabilities of tokens; None if nobody asked for them."""

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

    def whole(
        self, text: str, finish: str, counts: Counts, scores: Scores = None
    ) -> dict[str, Any]:
        """A whole answer."""
        content = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = {"index": 0, **(content if self.chat else {"text": text})}
        choice |= {"logprobs": self._logprobs(scores), "finish_reason": FINISH[finish]}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage(counts),
        }

    def first(self) -> dict[str, Any] | None:
        """The beginning of a streamed chat; None for a completion."""
        return self._part({"role": "assistant", "content": ""}) if self.chat else None

    def part(self, text: str, scores: Scores = None) -> dict[str, Any]:
        """Newly written text."""
        return self._part({"content": text} if self.chat else text, scores=scores)

    def last(self, finish: str) -> dict[str, Any]:
        """The end of a streamed answer."""
        return self._part({} if self.chat else "", FINISH[finish])

    def counted(self, counts: Counts) -> dict[str, Any]:
        """The numbers of tokens, behind the end."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(counts)}

    def _part(
        self, delta: dict[str, Any] | str, finish: str | None = None, scores: Scores = None
    ) -> dict[str, Any]:
        own = {"delta": delta} if self.chat else {"text": delta}
        logprobs = self._logprobs(scores)
        choice = {"index": 0, **own, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _logprobs(self, scores: Scores) -> dict[str, Any] | None:
        """Log-probabilities in the form of a chat, or of a completion."""
        if scores is None:
            return None
        if self.chat:
            content = [
                {**_candidate(token.chosen), "top_logprobs": [_candidate(own) for own in token.top]}
                for token in scores
            ]
            return {"content": content, "refusal": None}
        tops = [
            {own.spelled.text: own.logprob for own in (*token.top, token.chosen)}
            for token in scores
        ]
        return {
            "tokens": [token.chosen.spelled.text for token in scores],
            "token_logprobs": [token.chosen.logprob for token in scores],
            "top_logprobs": tops if any(token.top for token in scores) else None,
            "text_offset": [token.start for token in scores],
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.ident}",
            "object": kind if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": CREATED_BY.replace(" ", "-"),
        }


def _candidate(own: Candidate) -> dict[str, Any]:
    raw = own.spelled.raw
    return {
        "token": own.spelled.text,
        "logprob": own.logprob,
        "bytes": None if raw is None else list(raw),
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
