"""A bundle that answers: prompts by its chat template, texts of any of its voices, within a budget.

Texts are written one after another. What a prompt has in common with the text before is not read
again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from edgezo.talk.voice import Voice
from edgezo_runtime.budget.generation_plan import plan_generation, room_beside
from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.messages import check_tools, check_turns
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.template import check_text
from edgezo_runtime.errors import DoesNotFitError, UsageError
from edgezo_runtime.evaluation.classify import classify
from edgezo_runtime.generation.generator import GenerationConfig, Generator, Look
from edgezo_runtime.generation.kept_text import KeptText

if TYPE_CHECKING:
    from edgezo_runtime.data.reading import Reading
    from edgezo_runtime.data.tokenizer import TextTokenizer
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.generation.generator import Delta

RunWaits = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Makes a run wait; see `Speaker`."""

LONGEST = 4096
"""Tokens of prompt and answer that are planned for, where nobody asks for more."""

_LEAST = 64
"""Tokens of prompt and answer below which no conversation is possible."""


@dataclass(slots=True)
class Counts:
    """Tokens of the last text.

    Attributes:
        prompt: of its prompt.
        read: of its prompt that were read; the others were known from the text before.
        new: that were generated, an end token included.
    """

    prompt: int = 0
    read: int = 0
    new: int = 0


class Speaker:
    """Writes texts with the voices of a bundle; for one thread at a time.

    Args:
        engine: the model.
        tokenizer: its tokenizer.
        voices: by name.
        run_waits: makes the run wait that takes steps with the engine, for as long as a text is
            written; is given a function that raises to end the text. The plan of the run holds,
            and keys and values get what its budget leaves. None: there is no run.

    Attributes:
        engine: the model.
        tokenizer: its tokenizer.
        voices: by name.
        context: most tokens of prompt and answer.
        counts: of the last text.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        voices: Mapping[str, Voice],
        *,
        run_waits: RunWaits | None = None,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.voices = dict(voices)
        self.context = engine.bundle.manifest.model.max_seq
        self.counts = Counts()
        self._run_waits = run_waits
        self._kept = KeptText()
        self._generators = {
            scope: Generator(engine, tokenizer, scope=scope)
            for scope in {voice.scope for voice in voices.values()}
        }

    # --- before ---

    def plan(
        self,
        budget_bytes: int,
        context: int,
        tell: Callable[[int, int], None] = lambda done, most: None,
    ) -> None:
        """Plan the memory for the longest prompt, and shorten it until it fits.

        Args:
            budget_bytes: what the process may take.
            context: most tokens of prompt and answer; 0 takes as many as fit, `LONGEST` at most.
            tell: as for `plan_generation`.
        Raises:
            UsageError: the model takes fewer tokens.
            DoesNotFitError: the budget is too small for this context, or for any.
        """
        longest = self.engine.bundle.manifest.model.max_seq
        if context > longest or context == 1:
            raise UsageError(f"`context` {context}: must be 2 to {longest}, what the model takes")
        size = context or min(longest, LONGEST)
        voice = next(iter(self.voices.values()))
        generator, tensors = self._generators[voice.scope], voice.tensors()
        while True:
            try:
                plan = plan_generation(
                    generator, [size - 1], tensors, GenerationConfig(1), budget_bytes, tell
                )
                break
            except DoesNotFitError as error:
                if context:
                    raise DoesNotFitError(f"`context` {context}: {error}") from error
                if size // 2 < _LEAST:
                    raise
                self.engine.give_back()
                size //= 2
        for own in self._generators.values():
            plan.apply(own)
        self.context = size

    def limit(self, context: int) -> None:
        """Set the most tokens of prompt and answer, where another plan holds."""
        self.context = min(context, self.engine.bundle.manifest.model.max_seq)

    # --- prompts ---

    @property
    def chats(self) -> bool:
        """Has the bundle a chat template?"""
        return self.tokenizer.chat_template is not None

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer)

    def chat_prompt(self, messages: object, tools: object = None) -> list[int]:
        """The tokens of a conversation, up to where the assistant answers.

        Args:
            messages: objects with a role and a content.
            tools: descriptions of tools, for templates that show them; None for none.
        Raises:
            DataError: they are no conversation, or the template refuses them.
            BundleError: there is no usable chat template.
        """
        turns = check_turns(messages, "messages")
        own = check_tools(tools, "tools")
        filled = list(self._template.with_contents(turns, "messages", tools=own))
        text = self._template.render(filled, "messages", tools=own, generation_prompt=True)
        return self.tokenizer.encode(text, add_special=False)

    def text_prompt(self, text: str) -> list[int]:
        """The tokens of a text that is continued.

        Raises:
            DataError: it has no UTF-8 form.
        """
        return self.tokenizer.encode(check_text(text, "the text", "prompt"), add_special=True)

    # --- label words ---

    def choose(self, name: str, reading: Reading, text: str) -> list[tuple[str, float]]:
        """The label words for a text, with their probabilities, the likeliest first.

        Args:
            name: of the voice.
            reading: has the template, of one field, and the label words.
            text: of the field.
        Raises:
            DataError: the text has no UTF-8 form.
        """
        reader = RowReader(self.tokenizer, **reading.settings())
        rows = reader.take([reader.text_row(text)], with_class=False)
        voice = self.voices[name]
        (found,) = classify(self.engine, voice.tensors(), rows, 1, scope=voice.scope)
        shares = zip(reading.labels, found.probabilities, strict=True)
        return sorted(shares, key=lambda pair: -pair[1])

    # --- texts ---

    def write(
        self,
        name: str,
        prompt: Sequence[int],
        config: GenerationConfig,
        check: Callable[[], None] = lambda: None,
        look: Look | None = None,
    ) -> Iterator[Delta]:
        """Write a text, token by token.

        Args:
            name: of the voice.
            prompt: tokens.
            config: how it is generated.
            check: called at every block and every token; raises to end the text.
            look: given every token with its logits.
        Raises:
            UsageError: the prompt is empty, or too long for what was planned.
            DoesNotFitError: keys and values do not fit beside the run.
            EdgezoError: memory is short, or a logit is not a number.
        """
        voice = self.voices[name]
        generator = self._generators[voice.scope]
        if len(prompt) + config.max_new_tokens > self.context:
            raise UsageError(
                f"the prompt has {len(prompt)} tokens, the answer up to {config.max_new_tokens}; "
                f"there is room for {self.context} in all"
            )
        waits = contextlib.nullcontext() if self._run_waits is None else self._run_waits(check)
        with waits:
            yield from self._write(voice, generator, prompt, config, check, look)

    def _write(
        self,
        voice: Voice,
        generator: Generator,
        prompt: Sequence[int],
        config: GenerationConfig,
        check: Callable[[], None],
        look: Look | None,
    ) -> Iterator[Delta]:
        """Write a text, while no step is taken."""
        kept = self._kept if voice.keeps else None
        if self._run_waits is not None:
            generator.cache_bytes, kept = room_beside(self.engine), None
        read, new = generator.prompt_tokens, generator.new_tokens
        tensors = voice.tensors()
        deltas = generator.stream([prompt], tensors, config, look, kept)
        try:
            while True:
                with self.engine.interruptible(check):
                    delta = next(deltas, None)
                self.counts = Counts(
                    len(prompt), generator.prompt_tokens - read, generator.new_tokens - new
                )
                if delta is None:
                    return
                yield delta
                check()
        finally:
            deltas.close()  # type: ignore[attr-defined]
