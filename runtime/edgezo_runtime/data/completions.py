"""Language modelling: the tokens of a row, and the places that are scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgezo_runtime.data.bos import bos_warning
from edgezo_runtime.data.conversations import ConversationReader, ScoredTurns
from edgezo_runtime.data.example_set import DataWarning, Example, TruncationReport
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.reading import LongRows
from edgezo_runtime.data.row_content import (
    KNOWN_FIELDS,
    ROW_FIELDS,
    Conversation,
    Pair,
    RowKind,
    Text,
    read_content,
    recognise,
    require_filled,
    used_fields,
)
from edgezo_runtime.data.scored import Scored, TooLongError
from edgezo_runtime.data.template import Template, check_text, kind_of, list_fields
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.data.truncation import cut_texts, prompt_room, truncate_prompt
from edgezo_runtime.data.unused_fields import UnusedFields, unused_by_template
from edgezo_runtime.errors import DataError, UsageError

ANSWER_FIELDS = ("completion", "output", "response", "answer", "answers")
"""Fields with the completion when the prompt comes from a template, in this order."""


@dataclass(frozen=True, slots=True)
class CompletionRows:
    """Examples without classes, with the parts of `ExampleSet` and its report."""

    examples: tuple[Example, ...]
    truncation: TruncationReport
    warnings: tuple[DataWarning, ...]


def build_completions(
    rows: Iterable[Row],
    tokenizer: TextTokenizer,
    template: Template | None,
    max_seq: int,
    *,
    train_on: ScoredTurns = "all",
    long: LongRows = "truncate",
) -> CompletionRows:
    """Tokenize rows for language modelling.

    With a template, the template makes the prompt. The completion is the first field of
    `ANSWER_FIELDS`; if it is a list, its first text. A space separates them if neither has one.

    Without a template, the fields of each row decide; a null is as an absent field:

    - `messages`, or `conversations` of ShareGPT: the chat template makes the text; turns of the
      assistant are scored, but for those with `weight` 0. `tools` go to the template, and `system`
      is the first message.
    - `prompt` and `completion`: texts are used unchanged; of arrays of messages the turns of the
      completion are scored.
    - `instruction`, `output` and maybe `input`: a conversation if the bundle has a chat template,
      behind the pairs of `history`; else paragraphs.
    - `text`: all tokens but the first are scored.

    Prompt and completion are tokenized together unless that changes the prompt's tokens. The
    bundle's end token follows, if there is one; the chat template says how `messages` end.

    Args:
        rows: the rows.
        tokenizer: the tokenizer.
        template: the prompt, or None.
        max_seq: longest input in tokens; `truncation` says what longer rows lose.
        train_on: the turns of a conversation that are scored.
        long: what happens to longer rows.

    Returns:
        The examples, numbered from 0; fewer than rows, if rows were left out.

    Raises:
        UsageError: the model is an encoder.
        DataError: a row does not match this description.
        BundleError: a row is a conversation and the bundle has no usable chat template.
    """
    if tokenizer.encodes:
        raise UsageError(
            f"a {tokenizer.task} bundle learns label words only; give `template` and `labels`"
        )
    reader = _Reader(tokenizer, template, max_seq, train_on)
    examples: list[Example] = []
    truncation = TruncationReport()
    for row in rows:
        try:
            scored = reader.read(row)
        except TooLongError:
            truncation = truncation.plus_dropped()
            continue
        if scored.shortened and long == "drop":
            truncation = truncation.plus_dropped()
            continue
        truncation = truncation.plus(scored.prompt_tokens_lost, scored.completion_tokens_lost)
        tokens, places = (np.array(x, np.int32) for x in (scored.tokens, scored.places))
        examples.append(Example(len(examples), row.line, tokens, places))
    return CompletionRows(tuple(examples), truncation, tuple(reader.warnings()))


class _Reader:
    """Turns rows into tokens."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: Template | None,
        max_seq: int,
        train_on: ScoredTurns,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_seq = max_seq
        self.template = template
        self.train_on = train_on
        self.apart = 0
        self.with_label = 0
        self.with_bos = 0
        self.kinds: Counter[RowKind] = Counter()
        self.chat: ConversationReader | None = None
        others = train_on != "answer"  # a reward may read every field
        self.unused = (
            UnusedFields(KNOWN_FIELDS, others=others)
            if template is None
            else unused_by_template(others=others)
        )

    def read(self, row: Row) -> Scored:
        self.with_label += row.fields.get("label") is not None
        if self.template is not None:
            return self._templated(row, self.template)
        kind, chat = recognise(row), self.tokenizer.chat_template is not None
        self.kinds[kind] += 1
        content = read_content(row, kind, chat=chat)
        used = used_fields(kind, content, chat=chat)
        self.unused.look(row.fields, used | {"label"}, f"a row with '{ROW_FIELDS[kind][0]}'")
        match content:
            case Conversation() as conversation:
                return self._conversations().read(conversation, row.where)
            case Pair(prompt, completion):
                return self._cut_pair(prompt, completion, row.where)
            case Text(text):
                self.with_bos += self.tokenizer.writes_bos(text)
                tokens = self.tokenizer.encode(text, add_special=True)
                return self._finish(tokens, 0, row.where).cut(self.max_seq)

    def _conversations(self) -> ConversationReader:
        if self.chat is None:
            self.chat = ConversationReader(self.tokenizer, self.max_seq, self.train_on)
        return self.chat

    def warnings(self) -> Iterator[DataWarning]:
        if len(self.kinds) > 1:
            parts = [f"{n} with '{ROW_FIELDS[kind][0]}'" for kind, n in self.kinds.most_common()]
            yield DataWarning(
                "mixed-kinds",
                f"the rows are of several kinds, and each is read by its own fields: "
                f"{', '.join(parts)}",
                self.kinds.total(),
            )
        yield from self.unused.warnings()
        if self.chat is not None:
            yield from self.chat.warnings()
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
        yield from bos_warning(self.tokenizer, self.with_bos)

    def _templated(self, row: Row, template: Template) -> Scored:
        values = template.values(row.fields, row.where)
        answer = answers_of(row.fields, row.where)[0]
        self.unused.look(
            row.fields, frozenset({*values, answer_field(row.fields), "label"}), "the template"
        )
        text = template.render(values)
        spaced = not text or text[-1].isspace() or answer[0].isspace()
        completion = answer if spaced else f" {answer}"
        whole = self._pair(text, completion, row.where)
        if whole.places[-1] <= self.max_seq:
            return whole
        bare = len(
            self.tokenizer.encode(template.render(dict.fromkeys(values, "")), add_special=True)
        )
        room = prompt_room(self.max_seq, len(whole.places))
        limit = min(max(room, bare + len(template.names)), self.max_seq)
        prompt = truncate_prompt(template, values, self.tokenizer, limit, row.where)
        scored = self._pair(prompt.text, completion, row.where, again=True)
        return replace(scored, prompt_tokens_lost=prompt.dropped).cut(self.max_seq)

    def _cut_pair(self, prompt: str, completion: str, where: str) -> Scored:
        """Tokenize a pair; one that is too long loses the middle of its prompt, then its end."""
        whole = self._pair(prompt, completion, where)
        size = whole.places[0]
        if whole.places[-1] <= self.max_seq:
            return whole
        kept = prompt

        def measure(texts: Sequence[str]) -> int:
            nonlocal kept
            (kept,) = texts
            return len(self.tokenizer.encode(kept, add_special=True))

        most = max(1, self.max_seq - min(len(whole.places) - 1, self.max_seq // 4))
        room = prompt_room(self.max_seq, len(whole.places))
        cut_texts([prompt], self.tokenizer, measure, room, most)
        scored = self._pair(kept, completion, where, again=True)
        return replace(scored, prompt_tokens_lost=size - scored.places[0]).cut(self.max_seq)

    def _pair(self, prompt: str, completion: str, where: str, *, again: bool = False) -> Scored:
        """Tokenize a pair; `again` if the row is counted already."""
        self.with_bos += not again and self.tokenizer.writes_bos(prompt + completion)
        before = self.tokenizer.encode(prompt, add_special=True)
        both = self.tokenizer.encode(prompt + completion, add_special=True)
        if both[: len(before)] != before or len(both) == len(before):
            self.apart += not again
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


def answer_field(fields: Mapping[str, Any]) -> str:
    """The field with the answers of a row whose prompt comes from a template.

    It is the first that is not null, else the first that is there; the row may have none.
    """
    names = [name for name in ANSWER_FIELDS if name in fields] or [ANSWER_FIELDS[0]]
    return next((name for name in names if fields.get(name) is not None), names[0])


def answers_of(fields: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the answers of a row whose prompt comes from a template; training uses the first.

    Args:
        fields: fields of the row.
        where: file and line, for the message.
    Raises:
        DataError: the row has no answer, or an answer is not text.
    """
    name = answer_field(fields)
    if name not in fields:
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
