"""Answers: what a request asks for, written by a speaker."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgezo.serve.refusals import Refusal, invalid
from edgezo.serve.spelling import Spelling
from edgezo.serve.token_scores import ScoredToken, TokenScores
from edgezo_runtime.errors import BundleError, DataError
from edgezo_runtime.generation.generator import GenerationConfig

if TYPE_CHECKING:
    from edgezo.serve.requests import TextRequest
    from edgezo.talk.speaker import Counts, Speaker
    from edgezo.talk.voice import Voice


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a request says nothing.

    Attributes:
        max_new_tokens: most new tokens; no request gets more.
        temperature: of sampling.
        stop: texts that end every answer.
    """

    max_new_tokens: int
    temperature: float
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """A part of an answer.

    Attributes:
        shown: new text, maybe empty.
        finish: why the answer ended; None before its end.
        counts: tokens so far.
        scores: log-probabilities of the tokens whose text this part has; None if nobody asked.
    """

    shown: str
    finish: str | None
    counts: Counts
    scores: tuple[ScoredToken, ...] | None = None


class Answers:
    """Answers requests, one at a time, in one thread.

    Args:
        speaker: writes.
        defaults: where a request says nothing.
    """

    def __init__(self, speaker: Speaker, defaults: Defaults) -> None:
        self.speaker = speaker
        self.defaults = defaults
        self._spelling = Spelling(speaker.tokenizer)

    def voice(self, name: str) -> Voice:
        """A model by its name.

        Raises:
            Refusal: there is none of this name.
        """
        voice = self.speaker.voices.get(name)
        if voice is None:
            raise Refusal(
                404,
                f"there is no model {name:.80}; /v1/models lists those there are",
                code="model_not_found",
                param="model",
            )
        return voice

    def check(self, request: TextRequest) -> None:
        """Refuse, before it waits, what cannot be answered.

        Raises:
            Refusal: the model is not there, or takes no messages.
        """
        self.voice(request.model)
        if request.is_chat and not self.speaker.chats:
            raise Refusal(
                400,
                "this bundle has no chat template; use /v1/completions",
                code="no_chat_template",
                param="messages",
            )

    def write(self, request: TextRequest, check: Callable[[], None]) -> Iterator[Written]:
        """Write an answer.

        Args:
            request: checked.
            check: raises when nobody waits for it any more.
        Raises:
            Refusal: the prompt is wrong or too long.
            EdgezoError: the text cannot be written.
        """
        prompt = self._prompt(request)
        room = self.speaker.context - len(prompt)
        field = "messages" if request.is_chat else "prompt"
        if not prompt:
            raise invalid(field, "is empty")
        if room < 1:
            raise invalid(
                field,
                f"{len(prompt)} tokens; there is room for {self.speaker.context}, the answer "
                f"included",
                code="context_length_exceeded",
            )
        most = request.max_tokens or self.defaults.max_new_tokens
        config = GenerationConfig(
            min(most, self.defaults.max_new_tokens, room),
            request.sampling(self.defaults.temperature, lambda: secrets.randbits(63)),
            (*self.defaults.stop, *request.stop),
        )
        top = request.logprobs
        scores = None if top is None else TokenScores(self._spelling, top)
        look = None if scores is None else scores.look
        for delta in self.speaker.write(request.model, prompt, config, check, look):
            ready = None if scores is None else scores.ready(delta.text)
            yield Written(delta.shown, delta.text.finish, self.speaker.counts, ready)

    def _prompt(self, request: TextRequest) -> list[int]:
        speaker, limit = self.speaker, self.speaker.engine.bundle.manifest.model.vocab_size
        field = "messages" if request.is_chat else "prompt"
        try:
            if request.messages is not None:
                return speaker.chat_prompt(request.messages, request.tools)
            if isinstance(request.prompt, str):
                return speaker.text_prompt(request.prompt)
        except (DataError, BundleError) as error:
            raise invalid(field, str(error)) from error
        tokens = request.prompt or []
        if not all(0 <= token < limit for token in tokens):
            raise invalid("prompt", f"expected tokens of 0 to {limit - 1}")
        return tokens
