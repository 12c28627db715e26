"""Truncation of prompts: the template stays whole, its longest fields lose their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgezo_runtime.data.template import Template
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError


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


def _first_tokens(value: str, spans: Sequence[tuple[int, int]], count: int) -> str:
    if len(spans) <= count:
        return value
    return value[: spans[count - 1][1]].rstrip() if count else ""
