"""Language modelling: the tokens of a row, and the places that are scored."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.messages import Message
from edgezo_runtime.data.example_set import DataWarning, Example, TruncationReport
from edgezo_runtime.data.records import Row
from edgezo_runtime.data.row_content import (
    Conversation,
    Pair,
    RowKind,
    Text,
    read_content,
    recognise,
    require_filled,
)
from edgezo_runtime.data.template import Template, check_text, kind_of, list_fields
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.data.truncation import truncate_prompt
from edgezo_runtime.errors import DataError, UsageError

ANSWER_FIELDS = ("completion", "output", "answer", "answers")
"""Fields with the completion when the prompt comes from a template, in this order."""


@dataclass(frozen=True, slots=True)
class CompletionRows:
    """Examples without classes, with the parts of `ExampleSet` and its report."""

    examples: tuple[Example, ...]
    truncation: TruncationReport
    warnings: tuple[DataWarning, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """One tokenized row.

    Attributes:
        tokens: prompt and completion.
        places: indices of the scored tokens, increasing and above 0.
        prompt_tokens_lost: tokens that truncation removed before the first scored token.
        completion_tokens_lost: tokens that truncation removed after it.
    """

    tokens: list[int]
    places: list[int]
    prompt_tokens_lost: int = 0
    completion_tokens_lost: int = 0


def build_completions(
    rows: Iterable[Row], tokenizer: TextTokenizer, template: Template | None, max_seq: int
) -> CompletionRows:
    """Tokenize rows for language modelling; the first row decides how all rows are read.

    With a template, the template makes the prompt. The completion is the first field of
    `ANSWER_FIELDS`; if it is a list, its first text. A space separates them if neither has one.

    Without a template, the fields of the first row decide:

    - `messages`: the chat template makes the text; turns of the assistant are scored.
    - `prompt` and `completion`: used unchanged.
    - `instruction`, `output` and maybe `input`: a conversation if the bundle has a chat template,
      else paragraphs.
    - `text`: all tokens but the first are scored.

    Prompt and completion are tokenized together unless that changes the prompt's tokens. The
    bundle's end token follows, if there is one; the chat template says how `messages` end.

    Args:
        rows: the rows.
        tokenizer: the tokenizer.
        template: the prompt, or None.
        max_seq: longest input in tokens. A longer row first loses the start of its prompt, except
            one token before the completion and a leading `bos_id`, then the end of its completion.
            If the template fits beside the completion, it stays whole, and its longest fields lose
            their end instead.

    Returns:
        The examples.

    Raises:
        UsageError: the model is a masked-lm.
        DataError: a row does not match this description.
        BundleError: the rows are `messages` and the bundle has no usable chat template.
    """
    if tokenizer.task == "masked-lm":
        raise UsageError("a masked-lm bundle learns label words only; give `template` and `labels`")
    reader: _Reader | None = None
    examples: list[Example] = []
    truncation = TruncationReport()
    for index, row in enumerate(rows):
        if reader is None:
            reader = _Reader(tokenizer, template, None if template else recognise(row), max_seq)
        scored = _truncate(reader.read(row), max_seq, tokenizer.bos_id)
        truncation = truncation.plus(scored.prompt_tokens_lost, scored.completion_tokens_lost)
        tokens, places = (np.array(x, np.int32) for x in (scored.tokens, scored.places))
        examples.append(Example(index, row.line, tokens, places))
    warnings = () if reader is None else tuple(reader.warnings())
    return CompletionRows(tuple(examples), truncation, warnings)


class _Reader:
    """Turns rows of one kind into tokens."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: Template | None,
        kind: RowKind | None,
        max_seq: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_seq = max_seq
        self.template = template
        self.kind = kind
        self.apart = 0
        self.with_label = 0
        wants_chat = kind == "messages" or (kind == "instruction" and tokenizer.chat_template)
        self.chat = ChatTemplate(tokenizer) if wants_chat else None

    def read(self, row: Row) -> Scored:
        self.with_label += "label" in row.fields
        if self.kind is None:
            return self._templated(row)
        match read_content(row, self.kind, chat=self.chat is not None):
            case Conversation(messages, _):
                return self._conversation(messages, row.where)
            case Pair(prompt, completion):
                return self._pair(prompt, completion, row.where)
            case Text(text):
                tokens = self.tokenizer.encode(text, add_special=True)
                return self._finish(tokens, 0, row.where)

    def warnings(self) -> Iterator[DataWarning]:
        if self.apart:
            yield DataWarning(
                "completion-boundary",
                f"in {self.apart} rows the prompt has other tokens when the completion follows, so "
                "prompt and completion are tokenized separately; move the space between them to "
                "the completion",
                self.apart,
            )
        if self.with_label:
            yield DataWarning(
                "unused-label",
                f"{self.with_label} rows have an unused field 'label'; to learn it give "
                "`template` and one word per class in `labels`",
                self.with_label,
            )

    def _templated(self, row: Row) -> Scored:
        if self.template is None:
            raise TypeError("a row without a kind needs a template")
        values = self.template.values(row.fields, row.where)
        answer = answers_of(row.fields, row.where)[0]
        bare = self.tokenizer.encode(
            self.template.render(dict.fromkeys(values, "")), add_special=True
        )
        room = self.max_seq - len(self.tokenizer.encode(f" {answer}", add_special=False))
        limit = room if room >= max(len(bare), 1) else sys.maxsize  # else `_truncate` does it
        prompt = truncate_prompt(self.template, values, self.tokenizer, limit, row.where)
        spaced = not prompt.text or prompt.text[-1].isspace() or answer[0].isspace()
        scored = self._pair(prompt.text, answer if spaced else f" {answer}", row.where)
        return replace(scored, prompt_tokens_lost=prompt.dropped)

    def _conversation(self, messages: list[Message], where: str) -> Scored:
        if self.chat is None:
            raise TypeError("a conversation needs a chat template")
        text, turns = self.chat.assistant_spans(messages, where)
        tokens, spans = self.tokenizer.encode_spans(text, add_special=False)
        places = [
            index
            for index, (start, end) in enumerate(spans)
            if index > 0
            and any(start < turn_end and end > turn_start for turn_start, turn_end in turns)
        ]
        if not places:
            raise DataError(f"{where}: the assistant's words have no tokens; remove the row")
        return Scored(tokens, places)

    def _pair(self, prompt: str, completion: str, where: str) -> Scored:
        before = self.tokenizer.encode(prompt, add_special=True)
        both = self.tokenizer.encode(prompt + completion, add_special=True)
        if both[: len(before)] != before or len(both) == len(before):
            self.apart += 1
            both = before + self.tokenizer.encode(completion, add_special=False)
        return self._finish(both, len(before), where)

    def _finish(self, tokens: list[int], first: int, where: str) -> Scored:
        """Add the end token, and score all tokens from `first` on except the very first one."""
        ends = self.tokenizer.eos_ids
        if ends and tokens and tokens[-1] not in ends:
            tokens = [*tokens, ends[0]]
        places = list(range(max(first, 1), len(tokens)))
        if not places:
            raise DataError(
                f"{where}: nothing to predict, the row has {len(tokens)} tokens in all; "
                "make its text longer or remove the row"
            )
        return Scored(tokens, places)


def _truncate(scored: Scored, max_seq: int, bos_id: int | None) -> Scored:
    """Truncate the input (all tokens before the last scored one) to at most `max_seq` tokens."""
    first, last = scored.places[0], scored.places[-1]
    tokens = scored.tokens[: last + 1]
    over = max(last - max_seq, 0)
    front = min(over, first - 1)
    keep = 1 if front and tokens[0] == bos_id else 0
    tokens = tokens[:keep] + tokens[keep + front :]
    places = [place - front for place in scored.places if place - front <= max_seq]
    left = places[-1] + 1
    prompt_tokens_lost = scored.prompt_tokens_lost + front
    return Scored(tokens[:left], places, prompt_tokens_lost, len(tokens) - left)


def answers_of(fields: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the answers of a row whose prompt comes from a template; training uses the first.

    Args:
        fields: fields of the row.
        where: file and line, for the message.
    Raises:
        DataError: the row has no answer, or an answer is not text.
    """
    name = next((name for name in ANSWER_FIELDS if name in fields), None)
    if name is None:
        raise DataError(
            f"{where}: the template has no answer to learn: the row has {list_fields(fields)}, "
            f"expected one of {', '.join(ANSWER_FIELDS)}; or give one word per class in `labels`"
        )
    value = fields[name]
    values = value if isinstance(value, list) and value else [value]
    odd = [text for text in values if not isinstance(text, str)]
    if odd:
        found = "an empty array" if value == [] else kind_of(odd[0])
        raise DataError(
            f"{where}: field '{name}' is {found}, expected a string or an array of strings"
        )
    require_filled(check_text(values[0], f"field '{name}'", where), name, where)
    return tuple(check_text(text, f"field '{name}'", where) for text in values)
