"""Generated texts: prompts are read once, then a token costs the work of one token.

Where a block cannot continue from earlier tokens (convolutions, or positions that onnxruntime's
attention does not know), a token costs the work of the whole text so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.data.answer_room import answer_room
from edgezo_runtime.data.chat.turn_end import stop_tokens
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.params import Params, SharedParams
from edgezo_runtime.engine.rotary_sides import RotarySides
from edgezo_runtime.errors import DoesNotFitError, UsageError
from edgezo_runtime.generation.copy_cache import CopyCache
from edgezo_runtime.generation.device_cache import DeviceKvCache, text_states
from edgezo_runtime.generation.kept_text import KeptText
from edgezo_runtime.generation.kv_cache import KvCache, bytes_per_token, room_for, room_within
from edgezo_runtime.generation.sampling import Sampling
from edgezo_runtime.generation.text_reader import Text, TextReader
from edgezo_runtime.generation.text_stream import TextStream
from edgezo_runtime.system.sizes import format_size

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

Look = Callable[[int, int, int, npt.NDArray[np.float32]], None]
"""Given the number of a text, the number of its next token, that token, and the logits (V,) that it
was chosen from; they are valid during the call."""

MOST_ROWS = 16
"""Most texts that are generated at once: with more, tokens are hardly cheaper."""


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How texts are generated.

    Attributes:
        max_new_tokens: most tokens of a text.
        sampling: how tokens are chosen.
        stop: strings that end a text; they are left out.
    """

    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UsageError: naming the setting.
        """
        if self.max_new_tokens < 1:
            raise UsageError(f"`max_new_tokens` {self.max_new_tokens}: must be 1 or more")
        self.sampling.check()


@dataclass(frozen=True, slots=True)
class Delta:
    """Newly generated text.

    Attributes:
        text: the text that it belongs to.
        shown: the new part, maybe empty.
    """

    text: Text
    shown: str


def why_no_text(manifest: Manifest) -> str | None:
    """Why a bundle cannot generate; None if it can."""
    model = manifest.model
    if model.task != "causal-lm":
        return f"a {model.task} model generates no text; set `task` causal-lm for its export"
    if manifest.graphs.logits is None:
        return "it was exported before there was generation; run 'edgezo export --force'"
    return None


class Generator:
    """Generates texts with an engine.

    Args:
        engine: the model.
        tokenizer: its tokenizer.
        scope: tokens that the adapters act on; with "answer", from a prompt's last token on.
        cache_bytes: limit on keys and values; None for no limit. May be set later.

    Attributes:
        engine: the model.
        ends: tokens that end a text.
        new_tokens: tokens generated so far, end tokens included.

    Raises:
        UsageError: the bundle cannot generate.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        *,
        scope: Scope = "all",
        cache_bytes: int | None = None,
    ) -> None:
        manifest = engine.bundle.manifest
        reason = why_no_text(manifest)
        if reason is not None:
            raise UsageError(f"bundle {engine.bundle.root} cannot generate: {reason}")
        self.engine = engine
        self._tokenizer = tokenizer
        self._scope = scope
        self.cache_bytes = cache_bytes
        self._graphs = manifest.graphs
        self._virtual = manifest.scheme.prompt_tokens
        self._max_seq = manifest.model.max_seq
        self.ends = stop_tokens(tokenizer) | frozenset(manifest.tokenizer.eos_ids)
        switch = RotarySides.of(manifest).switch
        self._switch = None if switch is None else switch - self._virtual
        self._pad = manifest.tokenizer.pad_id
        self._reader = TextReader(engine, scope)
        self.new_tokens = 0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of prompts read so far; those of a kept text are not read again."""
        return self._reader.prompt_tokens

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: Mapping[str, Float32] | Params,
        config: GenerationConfig,
        progress: Callable[[int, int], None] | None = None,
        look: Look | None = None,
    ) -> list[Text]:
        """Generate a text for every prompt.

        Args:
            prompts: tokens of each, at least one.
            params: every trainable input by name, without the leading axis; or the copies of one
                group, by number of the prompt.
            config: how they are generated.
            progress: given the number of texts that have ended, and of all texts.
            look: given every token with its logits.
        Returns:
            The texts, in the order of the prompts.
        Raises:
            UsageError: a prompt is empty, or too long for the model.
            DoesNotFitError: keys and values of a single text need more than they may take.
            DivergedError: a logit is not a number.
        """
        texts: dict[int, Text] = {}
        done = 0
        for delta in self.stream(prompts, params, config, look):
            texts[delta.text.number] = delta.text
            if delta.text.finish is not None:
                done += 1
                if progress is not None:
                    progress(done, len(prompts))
        return [texts[number] for number in range(len(prompts))]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        params: Mapping[str, Float32] | Params,
        config: GenerationConfig,
        look: Look | None = None,
        kept: KeptText | None = None,
    ) -> Iterator[Delta]:
        """Generate as `generate` does, token by token, several texts at once.

        Args:
            prompts: as for `generate`; with `kept`, one.
            params: as for `generate`; with `kept`, the very same object as for the text before.
            config: as for `generate`.
            look: as for `generate`.
            kept: the text before, whose keys and values are used as far as the prompt is the same;
                becomes this text. None reads the whole prompt.
        Yields:
            A delta per token; the last one of a text says why the text ended.
        """
        if kept is not None and len(prompts) != 1:
            raise UsageError(f"{len(prompts)} prompts: a text is kept of one only")
        config.check()
        texts = [self._begin(number, prompt, config) for number, prompt in enumerate(prompts)]
        least = least_rows(len(texts))
        self._check(texts, config)
        given = SharedParams(params) if isinstance(params, Mapping) else params
        for group in self._groups(texts, config):
            keeper = None if kept is None else (kept, (self.engine, params))
            yield from self._generate(group, given, config, least, look, keeper)

    def rehearse(self, prompt: int, rows: int, params: Mapping[str, Float32] | Params) -> None:
        """Read prompts in one block of each kind, to see how much memory that takes.

        Args:
            prompt: tokens of each prompt.
            rows: number of prompts.
            params: as for `generate`.
        """
        counts, limit = (self.prompt_tokens, self.new_tokens), self.cache_bytes
        self.cache_bytes = None
        try:
            with self.engine.sampling(self.engine.model.kinds):
                self.generate([[self._pad] * prompt] * rows, params, GenerationConfig(1))
        finally:
            self.cache_bytes = limit
            self._reader.prompt_tokens, self.new_tokens = counts

    def most_tokens(self, prompt: int, cache_bytes: int, texts: int) -> int:
        """Compute how many new tokens of each of `texts` texts `cache_bytes` allow; 0 if none."""
        if not self._graphs.continues:
            return self._limit(prompt) - prompt
        row = bytes_per_token(self._graphs) * least_rows(texts)
        fits = room_within(cache_bytes // row, self._most(prompt))
        return max(0, min(fits + 1 - prompt - self._virtual, self._limit(prompt) - prompt))

    # --- before ---

    def _begin(self, number: int, prompt: Sequence[int], config: GenerationConfig) -> Text:
        stream = TextStream(self._tokenizer, prompt, config.stop)
        return Text(number, tuple(int(token) for token in prompt), stream)

    def _check(self, texts: Sequence[Text], config: GenerationConfig) -> None:
        """Refuse prompts that are empty, or leave too little room for new tokens."""
        for text in texts:
            if not text.prompt:
                raise UsageError(f"prompt {text.number + 1} is empty")
            size, room = len(text.prompt), answer_room(self._max_seq, config.max_new_tokens)
            if size > room:
                raise UsageError(
                    f"prompt {text.number + 1} has {size} tokens; `max_new_tokens` "
                    f"{config.max_new_tokens} leaves room for {room}, the model takes "
                    f"{self._max_seq} in all"
                )
            if size + config.max_new_tokens > self._limit(size):
                raise UsageError(
                    f"prompt {text.number + 1} has {size} tokens; `max_new_tokens` "
                    f"{config.max_new_tokens} leads beyond {self._switch}, where the model turns "
                    f"all its tokens by other rotary frequencies; give {self._fits(size)}"
                )
            self._rows_that_fit(size, config, len(texts))

    def _fits(self, prompt: int) -> str:
        """What to do where a text would cross the switch."""
        left = self._limit(prompt) - prompt
        return f"`max_new_tokens` {left} or less" if left else "a shorter or a longer prompt"

    def _limit(self, prompt: int) -> int:
        """Most tokens of a text, its prompt included.

        No text crosses the switch of the rotary frequencies: the keys of all tokens so far would
        have to be made again.
        """
        if self._switch is None or prompt > self._switch:
            return self._max_seq
        return min(self._max_seq, self._switch)

    def _most(self, prompt: int) -> int:
        """Most tokens of a row whose keys and values are cached: the last token is never read."""
        return self._limit(prompt) + self._virtual - 1

    def text_bytes(self, prompt: int, new: int) -> int:
        """Bytes of the keys and values of one text at its longest."""
        tokens = self._virtual + prompt + new - 1  # the last one is never read
        return room_for(tokens, self._most(prompt)) * bytes_per_token(self._graphs)

    def _rows_that_fit(self, prompt: int, config: GenerationConfig, texts: int) -> int:
        """Count the texts of a length whose keys and values fit at once.

        Args:
            prompt: tokens of the prompt.
            config: has the number of new tokens.
            texts: number of texts that are to be generated.
        """
        if self.cache_bytes is None or not self._graphs.continues:
            return MOST_ROWS
        each = self.text_bytes(prompt, config.max_new_tokens)
        least = least_rows(texts)
        fits = self.cache_bytes // each // least * least
        if fits:
            return min(MOST_ROWS, fits)
        most = self.most_tokens(prompt, self.cache_bytes, texts)
        advice = f"`max_new_tokens` {most} fits" if most else "not even one token fits"
        raise DoesNotFitError(
            f"`max_new_tokens` {config.max_new_tokens} behind a prompt of {prompt} tokens: keys "
            f"and values take {format_size(least * each, up=True)}, "
            f"{format_size(self.cache_bytes)} of the budget are left for them; {advice}"
        )

    def _groups(self, texts: Sequence[Text], config: GenerationConfig) -> Iterator[list[Text]]:
        """Divide texts into groups that are generated together, the longest prompts first."""
        left = sorted(texts, key=lambda text: -len(text.prompt))
        while left:
            longest = len(left[0].prompt)
            alike = [text for text in left if self._limit(len(text.prompt)) == self._limit(longest)]
            count = min(len(alike), self._rows_that_fit(longest, config, len(texts)))
            yield sorted(left[:count], key=lambda text: text.number)
            left = left[count:]

    # --- one group ---

    def _generate(
        self,
        group: list[Text],
        params: Params,
        config: GenerationConfig,
        least: int,
        look: Look | None,
        keeper: tuple[KeptText, tuple[object, ...]] | None,
    ) -> Iterator[Delta]:
        """Read the prompts of a group, then generate until all texts have ended."""
        states: KvCache | DeviceKvCache | None = None
        found: tuple[KvCache | DeviceKvCache, int] | None = None
        most = self._most(len(group[0].prompt))
        if keeper is not None:
            answers = self._scope == "answer"
            found = keeper[0].take(group[0].prompt, keeper[1], most, answers=answers)
        if found is not None:
            states, read = found
            states.lengths[:] = read + self._virtual
        elif self._graphs.continues:
            rows = len(group) + -len(group) % least
            states = text_states(self.engine, rows, most)
            self.engine.note_text(states)
        live = list(group)
        params = CopyCache(params, np.array([text.number for text in group], np.int64))
        kept_inputs: dict[int, dict[str, Any]] = {}
        chosen = np.zeros(len(group), np.int64)

        def take(rows: Int64, logits: Float32) -> None:
            for row, own in zip(rows.tolist(), logits, strict=True):
                if row >= len(live):  # the padding row
                    continue
                text = live[row]
                place = len(text.tokens)
                chosen[row] = token = config.sampling.choose(own, text.number, place)
                if look is not None:
                    look(text.number, place, token, own)

        try:
            if found is not None and states is not None:
                self._reader.read_rest(group[0], params, states, kept_inputs, take)
            else:
                self._reader.read_prompts(live, params, states, take)
            while True:
                for text, token in zip(live, chosen.tolist(), strict=False):
                    yield self._append(text, token, config)
                going = [row for row, text in enumerate(live) if text.finish is None]
                if not going:
                    return
                if len(going) < len(live):
                    padding = going[-1:] * (-len(going) % least)
                    if states is not None:
                        states.keep(np.array([*going, *padding], np.int64))
                    live, chosen = [live[row] for row in going], chosen[going]
                if states is None:
                    self._reader.read_prompts(live, params, None, take)
                else:
                    self._reader.read_tokens(live, params, states, kept_inputs, take)
        finally:  # also where the caller stops early
            if keeper is not None and states is not None:
                self._keep(group[0], states, keeper, most)

    def _keep(
        self,
        text: Text,
        states: KvCache | DeviceKvCache,
        keeper: tuple[KeptText, tuple[object, ...]],
        most: int,
    ) -> None:
        """Keep what was read of a text; the last token that was chosen was not."""
        read = max(0, int(states.lengths[0]) - self._virtual)
        tokens = (*text.prompt, *text.tokens)[:read]
        keeper[0].put(tokens, states, keeper[1], most, len(text.prompt) - 1)

    def _append(self, text: Text, token: int, config: GenerationConfig) -> Delta:
        """Append a token to a text; end the text if the token ends it."""
        self.new_tokens += 1
        if token in self.ends:
            text.finish = "end"
            return Delta(text, text.stream.end())
        text.tokens.append(token)
        shown = text.stream.add(token)
        if text.stream.stopped:
            text.finish = "stop"
        elif len(text.tokens) >= config.max_new_tokens:
            text.finish = "length"
            shown += text.stream.end()
            if text.stream.stopped:
                text.finish = "stop"
        return Delta(text, shown)


def least_rows(texts: int) -> int:
    """Give the number whose multiples go through blocks.

    Of several texts an odd last row comes twice: alone it would take kernels that round
    differently, and a text would depend on which others are generated with it. A single text needs
    no second row.
    """
    return 1 if texts == 1 else 2
