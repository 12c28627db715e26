"""Prompts that fit: the template stays whole, its longest fields lose their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgezo_runtime.data.template import Template
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: its text, its tokens, and how many tokens were cut."""

    text: str
    tokens: list[int]
    dropped: int


def fit_prompt(
    template: Template,
    values: Mapping[str, str],
    tokenizer: TextTokenizer,
    limit: int,
    where: str,
) -> Fitted:
    """Render a prompt, shortening its longest fields until it has at most `limit` tokens.

    The literal text of the template stays whole. All fields longer than some number of tokens
    lose their end; the number is the largest that does it.

    Args:
        template: the template.
        values: its fields, from `Template.values`.
        tokenizer: the tokenizer.
        limit: tokens allowed, special ones included.
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
        return Fitted(text, tokens, 0)
    spans = {
        name: tokenizer.encode_spans(value, add_special=False)[1] for name, value in values.items()
    }
    sizes = [len(spans[name]) for name in template.names]
    cap = max(sizes)
    while len(tokens) > limit:
        if cap == 0:
            raise DataError(
                f"{where}: the template alone has {len(tokens)} tokens and at most {limit} fit; "
                "raise --max-seq or shorten the template"
            )
        cap = _lower_cap(sizes, cap, len(tokens) - limit)
        cut = {name: _first_tokens(value, spans[name], cap) for name, value in values.items()}
        text = template.render(cut)
        tokens = tokenizer.encode(text, add_special=True)
    return Fitted(text, tokens, full - len(tokens))


def _lower_cap(sizes: Sequence[int], cap: int, over: int) -> int:
    """Largest number of tokens a field, below `cap`, that removes `over` tokens; 0 if none."""
    now = sum(min(size, cap) for size in sizes)
    for lower in range(cap - 1, 0, -1):
        if now - sum(min(size, lower) for size in sizes) >= over:
            return lower
    return 0


def _first_tokens(value: str, spans: Sequence[tuple[int, int]], count: int) -> str:
    if len(spans) <= count:
        return value
    return value[: spans[count - 1][1]].rstrip() if count else ""
