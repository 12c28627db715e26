"""How a chat template ends a turn of the assistant, and the tokens that end a generated text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.marks import unused_marks
from edgezo_runtime.data.tokenizer import AddedTokens, TextTokenizer
from edgezo_runtime.errors import BundleError, DataError


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a template ends a turn of the assistant.

    Attributes:
        tail: what it writes behind the last message, if that is the assistant's; None if unknown.
        closing: the part of the tail that ends the turn; empty if nothing does.
        token: the token to learn as the end of a turn: the one that `closing` ends with; else the
            one that opens the next turn; else the tokenizer's end token; None without any.
        opens_next: True if that is the token which opens the next turn.
    """

    tail: str | None
    closing: str
    token: int | None
    opens_next: bool = False

    @property
    def written(self) -> bool:
        """True if the template itself ends a turn."""
        return bool(self.closing.strip())


def find_turn_end(template: ChatTemplate, tokenizer: TextTokenizer, added: AddedTokens) -> TurnEnd:
    """Find how a template ends a turn, from renderings of marks in place of messages.

    Args:
        template: the tokenizer's chat template, compiled.
        tokenizer: the tokenizer.
        added: its tokens that are not made of others.
    """
    marks = list(islice(unused_marks([template.source]), 4))
    tail = _behind(template, marks[:2], marks[1])
    eos = next(iter(tokenizer.eos_ids), None)
    if tail is None:
        return TurnEnd(None, "", eos)
    found = added.first_in(tail)
    if found is not None:
        return TurnEnd(tail, tail[: found.end], found.token)
    if tail.strip():
        tokens = tokenizer.encode(tail.strip(), add_special=False)
        return TurnEnd(tail, tail.rstrip(), tokens[0] if len(tokens) == 1 else None)
    more = _behind(template, marks, marks[1])
    opener = added.first_in(more.partition(marks[2])[0]) if more else None
    if opener is not None:
        return TurnEnd(tail, "", opener.token, opens_next=True)
    return TurnEnd(tail, "", eos)


def _behind(template: ChatTemplate, contents: list[str], mark: str) -> str | None:
    """Render contents as messages of user and assistant in turn; return what follows the mark.

    None if the template refuses such messages, or does not show them once each.
    """
    messages = [
        {"role": role, "content": content}
        for role, content in zip(("user", "assistant") * 2, contents, strict=False)
    ]
    try:
        text = template.render(messages, "probe")
    except DataError:
        return None
    return text.partition(mark)[2] if all(text.count(part) == 1 for part in contents) else None


def stop_tokens(tokenizer: TextTokenizer) -> frozenset[int]:
    """Return the tokens that end a generated text.

    They are the tokenizer's end tokens, and the token with which the chat template ends a turn of
    the assistant: a chat model may have learned that one only. A template that cannot be compiled
    adds none; it is refused where messages are rendered.
    """
    return frozenset(_stops(tokenizer))


def _stops(tokenizer: TextTokenizer) -> Iterator[int]:
    yield from tokenizer.eos_ids
    if tokenizer.chat_template is None or tokenizer.task != "causal-lm":
        return
    try:
        template = ChatTemplate(tokenizer)
    except BundleError:
        return
    token = find_turn_end(template, tokenizer, AddedTokens(tokenizer)).token
    if token is not None:
        yield token
