"""Conversations as tokens, with the assistant's turns scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.chat.messages import Message, Tools, assistant_turns, content_of
from edgezo_runtime.data.chat.turns import RenderedChat, Turn, TurnFinder
from edgezo_runtime.data.chat.unread_keys import UnreadKeys
from edgezo_runtime.data.example_set import DataWarning
from edgezo_runtime.data.reading import TrainOn
from edgezo_runtime.data.row_content import Conversation
from edgezo_runtime.data.scored import Scored, TooLongError
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.data.truncation import cut_texts, prompt_room
from edgezo_runtime.errors import DataError

ScoredTurns = TrainOn | Literal["answer"]
"""Turns that are scored: those of `TrainOn`, or, for questions, the assistant's last turn whatever
its weight."""


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A conversation as tokens.

    Attributes:
        ids: its tokens.
        runs: indices of the scored tokens, one array per scored turn.
    """

    ids: list[int]
    runs: list[npt.NDArray[np.int64]]


class ConversationReader:
    """Turns conversations into tokens.

    A token is scored if it has a character of a scored turn. Where a token would reach from the
    generation prompt into a turn, or the prompt alone has other tokens, the text is tokenized in
    two parts, so that the prompt's tokens are those that the model reads before it answers.
    """

    def __init__(self, tokenizer: TextTokenizer, max_seq: int, train_on: ScoredTurns) -> None:
        """Compile the tokenizer's chat template.

        Raises:
            BundleError: there is no template, or it is not valid Jinja.
        """
        self._tokenizer = tokenizer
        self._max_seq = max_seq
        self._train_on = train_on
        self._finder = TurnFinder(tokenizer)
        self._unread = UnreadKeys(self._finder.template)
        self._apart = 0
        self._unlike = 0
        self._added_ends = 0

    def read(self, conversation: Conversation, where: str) -> Scored:
        """Tokenize a conversation, and cut it if it is longer than `max_seq`.

        Raises:
            DataError: the template refuses it, or the place of a turn is uncertain.
            TooLongError: its markup alone is too long.
        """
        messages, tools = conversation.messages, conversation.tools
        chosen = self._chosen(messages)
        chat = self._finder.find(messages, tools, where)
        self._unread.look(messages, tools, chat.text)
        tokens = self._tokens(chat, chosen, where)
        self._count(chat, chosen)
        return self._within(tokens, messages, tools, chosen, where)

    def warnings(self) -> Iterator[DataWarning]:
        """Warnings about the conversations so far."""
        yield from self._unread.warnings()
        if self._apart:
            yield DataWarning(
                "completion-boundary",
                f"in {self._apart} rows the prompt has other tokens when the assistant's turn "
                "follows, so the two are tokenized separately",
                self._apart,
            )
        if self._unlike:
            yield DataWarning(
                "generation-prompt",
                f"in {self._unlike} rows the text before the assistant's turn is not the chat "
                "template's generation prompt: in a chat, the model will begin its answers behind "
                "another text than in training",
                self._unlike,
            )
        if self._added_ends:
            yield DataWarning("turn-end", self._end_words(), self._added_ends)

    def _end_words(self) -> str:
        end = self._finder.turn_end
        what = (
            "the chat template writes no end behind the assistant's turn, so "
            f"{self._added_ends} rows end with "
        )
        if end.token is None:
            return (
                "the chat template writes no end behind the assistant's turn and the tokenizer has "
                f"no end token, so no end is learned from {self._added_ends} rows"
            )
        text = repr(self._tokenizer.token_text(end.token))
        return what + (f"{text}, which opens the next turn" if end.opens_next else f"{text}")

    def _chosen(self, messages: Sequence[Message]) -> list[int]:
        """Return the messages that are scored."""
        turns = assistant_turns(messages)
        if self._train_on == "answer":
            return turns[-1:]
        weighed = [index for index in turns if messages[index].get("weight", 1)]
        return weighed if self._train_on == "all" else weighed[-1:]

    def _count(self, chat: RenderedChat, chosen: Sequence[int]) -> None:
        last = chat.turns[-1]
        if last.message in chosen:
            self._unlike += not last.prompted
            self._added_ends += chat.ends_openly

    # --- tokens ---

    def _tokens(self, chat: RenderedChat, chosen: Sequence[int], where: str) -> _Tokens:
        turns = [turn for turn in chat.turns if turn.message in chosen]
        cuts: list[int] = []
        ids, spans = self._encode(chat.text, cuts)
        starts = [turn.start for turn in turns if turn.prompted]
        cuts = [start for start in starts if _reaches_over(spans, start)]
        last = starts[-1] if starts else 0
        if last not in cuts and self._differs_alone(chat.text, ids, spans, last):
            cuts.append(last)
        if cuts:
            self._apart += 1
            ids, spans = self._encode(chat.text, cuts)
        runs = [run for turn in turns if (run := _run(spans, turn)).size]
        if not runs:
            raise DataError(f"{where}: the assistant's words have no tokens; remove the row")
        end = self._finder.turn_end.token
        if chat.ends_openly and chat.turns[-1].message in chosen and end is not None:
            last = int(runs[-1][-1])
            ids = [*ids[: last + 1], end]
            runs[-1] = np.append(runs[-1], last + 1)
        return _Tokens(ids, runs)

    def _encode(self, text: str, cuts: Sequence[int]) -> tuple[list[int], npt.NDArray[np.int64]]:
        """Tokenize a text in parts; the spans are (tokens, 2)."""
        if not cuts:
            ids, spans = self._tokenizer.encode_spans(text, add_special=False)
            return ids, np.array(spans, np.int64).reshape(-1, 2)
        parts = [
            (start, *self._tokenizer.encode_spans(text[start:end], add_special=False))
            for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        ]
        offsets = [np.array(own, np.int64).reshape(-1, 2) + start for start, _, own in parts]
        return [token for _, own, _ in parts for token in own], np.concatenate(offsets)

    def _differs_alone(
        self, text: str, ids: Sequence[int], spans: npt.NDArray[np.int64], start: int
    ) -> bool:
        """Tell whether the text before `start` alone has other tokens.

        Tokens before the last added one do not depend on what follows it.
        """
        before = int(np.searchsorted(spans[:, 1], start, side="right"))
        added = self._finder.added.ids
        first = next((n for n in range(before - 1, -1, -1) if ids[n] in added), 0)
        begin = int(spans[first, 0]) if before else 0
        alone = self._tokenizer.encode(text[begin:start], add_special=False)
        return alone != list(ids[first:before])

    # --- conversations that are too long ---

    def _within(
        self,
        tokens: _Tokens,
        messages: Sequence[Message],
        tools: Tools | None,
        chosen: Sequence[int],
        where: str,
    ) -> Scored:
        """Cut a conversation to `max_seq`, as `truncation` says."""
        first = tokens.runs[0]
        prompt, answer = int(first[0]), int(first[-1] - first[0]) + 1
        full = prompt
        if prompt + answer - 1 > self._max_seq:
            shorter = _Shortener(self, messages, tools, chosen, where)
            most = max(1, self._max_seq - min(answer - 1, self._max_seq // 4))
            room = prompt_room(self._max_seq, answer)
            fits = cut_texts(shorter.texts, self._tokenizer, shorter.measure, room, most)
            tokens = shorter.tokens or tokens
            if not fits and int(tokens.runs[0][0]) > self._max_seq:
                raise TooLongError(
                    f"{where}: the text of the chat template around the messages has more than "
                    f"`max_seq` {self._max_seq} tokens"
                )
        places = np.concatenate(tokens.runs)
        lost = max(full - int(tokens.runs[0][0]), 0)
        return Scored(tokens.ids, [int(place) for place in places], lost).cut(self._max_seq)


class _Shortener:
    """The texts before the first scored turn, and the tokens of the row with shorter ones."""

    def __init__(
        self,
        reader: ConversationReader,
        messages: Sequence[Message],
        tools: Tools | None,
        chosen: Sequence[int],
        where: str,
    ) -> None:
        self._reader = reader
        self._messages = messages
        self._find = partial(reader._finder.find, tools=tools, where=where)
        self._tokenize = partial(reader._tokens, chosen=chosen, where=where)
        self._indices = [n for n in range(chosen[0]) if content_of(messages[n]).strip()]
        self.texts = [content_of(messages[n]) for n in self._indices]
        self.tokens: _Tokens | None = None

    def measure(self, texts: Sequence[str]) -> int:
        """Count the tokens before the first scored turn."""
        messages = list(self._messages)
        for index, text in zip(self._indices, texts, strict=True):
            messages[index] = {**messages[index], "content": text}
        self.tokens = self._tokenize(self._find(messages))
        return int(self.tokens.runs[0][0])


def _reaches_over(spans: npt.NDArray[np.int64], place: int) -> bool:
    """Tell whether a token has characters on both sides of a place."""
    after = int(np.searchsorted(spans[:, 1], place, side="right"))
    return after < len(spans) and int(spans[after, 0]) < place


def _run(spans: npt.NDArray[np.int64], turn: Turn) -> npt.NDArray[np.int64]:
    """Return the tokens that have characters of a turn; the first token is never predicted."""
    inside = (spans[:, 0] < turn.end) & (spans[:, 1] > turn.start)
    inside[:1] = False
    return np.flatnonzero(inside)
