"""Rows that are longer than `max_seq`: what they lose, in which order.

A row keeps the markup of its chat template and the literal text of its template. First the texts of
the prompt lose tokens, above a common number of tokens each, so that the longest lose first and
short ones stay whole: the fields of a template lose their end; a message or a whole prompt loses
its middle, since a question may come first or last in it. The prompt loses no more than the row is
too long by, and keeps at least half of `max_seq`. Then the answer loses its end, and the end token
with it, so that no false end is learned. Of several answers, those that no longer fit are lost.

Only where markup leaves no room otherwise does a prompt keep less than half, and always a token of
each text. A row whose markup alone is too long is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgezo_runtime.data.template import Template
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError

_LEAST = 16
"""Tokens that a text of a prompt keeps, or its share of half of the room where that is less."""

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class TruncatedPrompt:
    """A prompt within its limit.

    Attributes:
        text: the prompt.
        tokens: its tokens.
        dropped: number of tokens removed; 0 if the prompt was short enough.
    """

    text: str
    tokens: list[int]
    dropped: int


def prompt_room(max_seq: int, answer: int) -> int:
    """Return the tokens to which a prompt is cut in a row that is too long.

    Args:
        max_seq: longest input in tokens.
        answer: tokens of the answer; the last one is no input.
    """
    return max(max_seq // 2, max_seq - max(answer - 1, 0))


def cut_texts(
    texts: Sequence[str],
    tokenizer: TextTokenizer,
    measure: Callable[[Sequence[str]], int],
    room: int,
    most: int,
) -> bool:
    """Cut the middle of the longest texts of a prompt until the prompt fits.

    Args:
        texts: texts of the prompt.
        tokenizer: counts their tokens.
        measure: given shorter texts, returns the tokens of the prompt; called until it fits.
        room: tokens that the prompt should have; the texts keep some tokens each, see `_LEAST`.
        most: tokens that it may have at most; the texts keep one token each.
    Returns:
        False if the prompt is still longer than `most`.
    """
    spans = [tokenizer.encode_spans(text, add_special=False)[1] for text in texts]
    sizes = [len(own) for own in spans]
    cap, size = max(sizes, default=0), measure(texts)
    kept = max(1, min(_LEAST, room // max(1, 2 * len(texts))))
    for limit, least in ((room, kept), (most, 1)):
        while size > limit and cap > least:
            cap = max(_lower_cap(sizes, cap, size - limit), least)
            shorter = [_without_middle(*pair, cap) for pair in zip(texts, spans, strict=True)]
            size = measure(shorter)
    return size <= most


def truncate_prompt(
    template: Template,
    values: Mapping[str, str],
    tokenizer: TextTokenizer,
    limit: int,
    where: str,
) -> TruncatedPrompt:
    """Render a prompt and shorten its longest fields until it has at most `limit` tokens.

    The literal text of the template stays whole. Fields above a common number of tokens lose their
    end; the number is the largest with which the prompt fits.

    Args:
        template: the template.
        values: its fields, from `Template.values`.
        tokenizer: the tokenizer.
        limit: number of tokens allowed, special tokens included.
        where: file and line, for the message.

    Returns:
        The prompt.

    Raises:
        DataError: the template alone is longer than `limit`.
    """
    text = template.render(values)
    tokens = tokenizer.encode(text, add_special=True)
    full = len(tokens)
    if full <= limit:
        return TruncatedPrompt(text, tokens, 0)
    spans = {
        name: tokenizer.encode_spans(value, add_special=False)[1] for name, value in values.items()
    }
    sizes = [len(spans[name]) for name in template.names]
    cap = max(sizes)
    while len(tokens) > limit:
        if cap == 0:
            raise DataError(
                f"{where}: the template alone has {len(tokens)} tokens and at most {limit} fit; "
                f"shorten the template, or {tokenizer.remedy_for_length()}"
            )
        cap = _lower_cap(sizes, cap, len(tokens) - limit)
        shorter = {name: _first_tokens(value, spans[name], cap) for name, value in values.items()}
        text = template.render(shorter)
        tokens = tokenizer.encode(text, add_special=True)
    return TruncatedPrompt(text, tokens, full - len(tokens))


def _lower_cap(sizes: Sequence[int], cap: int, over: int) -> int:
    """Return the largest cap on tokens per field, below `cap`, that removes `over` tokens; or 0."""
    now = sum(min(size, cap) for size in sizes)
    for lower in range(cap - 1, 0, -1):
        if now - sum(min(size, lower) for size in sizes) >= over:
            return lower
    return 0


def _first_tokens(value: str, spans: Spans, count: int) -> str:
    if len(spans) <= count:
        return value
    return value[: spans[count - 1][1]].rstrip() if count else ""


def _without_middle(value: str, spans: Spans, count: int) -> str:
    if len(spans) <= count:
        return value
    last = count // 2
    behind = value[spans[-last][0] :] if last else ""
    return value[: spans[count - last - 1][1]] + behind
