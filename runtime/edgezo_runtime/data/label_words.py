"""Classification by label words: the class whose word is the likeliest continuation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgezo_runtime.data.bos import bos_warning
from edgezo_runtime.data.example_set import DataWarning, Example, Kind, TruncationReport
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.reading import LongRows
from edgezo_runtime.data.template import Template, kind_of, list_fields
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.data.truncation import TruncatedPrompt, truncate_prompt
from edgezo_runtime.data.unused_fields import unused_by_template
from edgezo_runtime.errors import DataError, MissingFieldError, UsageError

LABEL_FIELD = "label"

LabelTokens = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Examples with classes, with the parts of `ExampleSet` and its report."""

    kind: Kind
    examples: tuple[Example, ...]
    label_tokens: LabelTokens
    truncation: TruncationReport
    class_counts: tuple[int, ...]
    warnings: tuple[DataWarning, ...]


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check the label words themselves.

    Returns:
        The words, spaces kept.

    Raises:
        UsageError: there are fewer than two, one is empty, or two differ in spaces only.
    """
    if len(labels) < 2:
        raise UsageError(
            f"{len(labels)} label word: classification needs two or more; give one word per class "
            f"in `labels`"
        )
    seen: dict[str, str] = {}
    for label in labels:
        word = label.strip()
        if any("\ud800" <= char <= "\udfff" for char in label):
            raise UsageError(f"label {label!r} has half of a surrogate pair in it")
        if not word:
            raise UsageError(f"label {label!r} is empty; give each class a word such as ' great'")
        if word in seen:
            raise UsageError(f"labels {seen[word]!r} and {label!r} are the same word")
        seen[word] = label
    return tuple(labels)


def class_of(fields: Mapping[str, Any], labels: Sequence[str], where: str) -> int:
    """Read the class of a row.

    Args:
        fields: fields of the row; "label" is the index of the class, or its word without the spaces
            around it. In text, as tables have it, digits are a word if there is such a word; they
            are an index if no word is another number than its own index.
        labels: the label words.
        where: file and line, for the message.

    Returns:
        0 to len(labels) - 1.

    Raises:
        DataError: the field is missing, or does not name a class.
    """
    if LABEL_FIELD not in fields:
        raise MissingFieldError(
            f"{where}: no field '{LABEL_FIELD}'; the row has {list_fields(fields)}"
        )
    value = fields[LABEL_FIELD]
    if isinstance(value, str):
        words = [label.strip() for label in labels]
        if value.strip() in words:
            return words.index(value.strip())
        index = _index_in(value.strip(), words)
        if index is not None:
            return index
        known = ", ".join(f"'{word}'" for word in words[:20])
        raise DataError(f"{where}: label '{value:.40}' is none of {known}; see `labels`")
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(
            f"{where}: field '{LABEL_FIELD}' is {kind_of(value)}, "
            f"expected 0 to {len(labels) - 1} or a label word"
        )
    if not 0 <= value < len(labels):
        raise DataError(
            f"{where}: label {value!s:.20}, expected 0 to {len(labels) - 1} for {len(labels)} "
            "label words; give one word per class in `labels`, in class order"
        )
    return value


def _index_in(text: str, words: Sequence[str]) -> int | None:
    """Return the index of a class in digits; None if the text is none, or could be a word."""

    def number(word: str) -> int | None:
        return int(word) if word.isascii() and word.isdigit() and len(word) < 10 else None

    index = number(text)
    if any(number(word) not in (None, place) for place, word in enumerate(words)):
        return None
    return index if index is not None and index < len(words) else None


def build_labelled(
    rows: Callable[[], Iterable[Row]],
    tokenizer: TextTokenizer,
    template: Template,
    labels: Sequence[str],
    max_seq: int,
    *,
    known: LabelTokens | None = None,
    with_class: bool = True,
    long: LongRows = "truncate",
) -> LabelledRows:
    """Tokenize rows whose class is a label word after the prompt, or at the mask.

    Prompt and label word are tokenized together; the tokens after the prompt's are the label
    tokens. If that changes the prompt's own tokens, or gives other label tokens in another row,
    every label word is tokenized alone, and a warning counts the rows concerned.

    Args:
        rows: starts a pass over the rows. One pass is enough unless a label word has more tokens
            after a prompt than alone.
        tokenizer: the tokenizer.
        template: the prompt.
        labels: one word per class.
        max_seq: longest input in tokens.
        known: tokens of the label words, if another set has determined them.
        with_class: False if the rows have no class yet.
        long: what happens to longer rows.

    Returns:
        The examples, numbered from 0: kind "labels" if every label word is one token, else
        "candidates".

    Raises:
        UsageError: two label words have the same tokens, or the tokenizer does not know one; or
            they are not as many as the classes of the model's head.
        DataError: a row lacks a field or its class, or the template is too long for `max_seq`.
    """
    labels = check_labels(labels)
    alone: LabelTokens
    if tokenizer.task == "classification":  # classes of the model's head
        _check_classes(labels, tokenizer)
        known = alone = tuple((number,) for number in range(len(labels)))
    else:
        alone = tuple(tuple(tokenizer.encode(label, add_special=False)) for label in labels)
    reserve = max(map(len, known or alone))  # tokens reserved for the longest label word
    while True:
        prompts = _Prompts(
            tokenizer, template, labels, alone, max_seq - max(reserve - 1, 0), with_class, long
        )
        examples = tuple(prompts.examples(rows()))
        label_tokens = known or prompts.label_tokens()
        if max(map(len, label_tokens)) <= reserve:
            break
        reserve = max(map(len, label_tokens))
    if tokenizer.task != "classification":
        _check_label_tokens(labels, label_tokens, tokenizer)
    return LabelledRows(
        kind="labels" if all(len(tokens) == 1 for tokens in label_tokens) else "candidates",
        examples=examples,
        label_tokens=label_tokens,
        truncation=prompts.truncation,
        class_counts=tuple(prompts.class_counts),
        warnings=(
            *_warnings(prompts, labels, label_tokens),
            *prompts.unused.warnings(),
            *bos_warning(tokenizer, prompts.with_bos),
        ),
    )


class _Prompts:
    """One pass over the rows: tokenizes prompts and compares their label tokens."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: Template,
        labels: tuple[str, ...],
        alone: LabelTokens,
        limit: int,
        with_class: bool,
        long: LongRows,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.labels = labels
        self.alone = alone
        self.limit = limit
        self.with_class = with_class
        self.long = long
        self.with_bos = 0
        self.unused = unused_by_template()
        self.masked = tokenizer.task == "masked-lm"
        self.headed = tokenizer.task == "classification"
        self.joined: LabelTokens | None = None
        self.unlike_rows = 0
        self.truncation = TruncationReport()
        self.class_counts = [0] * len(labels)

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        index = 0
        for row in rows:
            found = self._example(index, row)
            if found is not None:
                index += 1
                yield found

    def _example(self, index: int, row: Row) -> Example | None:
        """Tokenize a row; None if it is left out."""
        values = self.template.values(row.fields, row.where)
        label = class_of(row.fields, self.labels, row.where) if self.with_class else 0
        if self.with_class:  # a row that an app asks about may be all that it has
            self.unused.look(row.fields, frozenset({*values, "label"}), "the template")
        prompt = truncate_prompt(self.template, values, self.tokenizer, self.limit, row.where)
        if prompt.dropped and self.long == "drop":
            self.truncation = self.truncation.plus_dropped()
            return None
        self.with_bos += self.tokenizer.writes_bos(prompt.text)
        if not prompt.tokens:
            raise DataError(f"{row.where}: the prompt is empty; fill the fields of the template")
        place = self._mask(prompt, row.where) if self.masked else len(prompt.tokens) - 1
        if self.headed:
            place = 0
        elif not self.masked:
            self._compare(prompt)
        self.truncation = self.truncation.plus(prompt.dropped)
        self.class_counts[label] += 1
        tokens = np.array(prompt.tokens, np.int32)
        return Example(index, row.line, tokens, np.array([place], np.int32), label)

    def label_tokens(self) -> LabelTokens:
        return self.alone if self.joined is None or self.unlike_rows else self.joined

    def _compare(self, prompt: TruncatedPrompt) -> None:
        """Compare the label tokens after this prompt with those after the first one."""
        found = tuple(self._after(prompt, label) for label in self.labels)
        if self.joined is None and all(found):
            self.joined = found
        if not all(found) or found != self.joined:
            self.unlike_rows += 1

    def _after(self, prompt: TruncatedPrompt, label: str) -> tuple[int, ...]:
        """Return the tokens of a label after a prompt; none if the prompt's own tokens change."""
        both = self.tokenizer.encode(prompt.text + label, add_special=True)
        size = len(prompt.tokens)
        return tuple(both[size:]) if both[:size] == prompt.tokens else ()

    def _mask(self, prompt: TruncatedPrompt, where: str) -> int:
        count = prompt.tokens.count(self.tokenizer.mask_id or 0)
        if count != 1:
            mask = self.tokenizer.token_text(self.tokenizer.mask_id)
            raise DataError(
                f"{where}: the prompt has {count} times '{mask}', expected once; put '{mask}' "
                "into the template where the label word belongs, and not into the data"
            )
        return prompt.tokens.index(self.tokenizer.mask_id or 0)


def _check_classes(labels: Sequence[str], tokenizer: TextTokenizer) -> None:
    classes = tokenizer.classes
    if len(labels) != len(classes):
        raise UsageError(
            f"`labels` are {len(labels)}, the head of the model has {len(classes)} classes "
            f"({', '.join(classes[:10])}); give a name for each, in this order"
        )


def _check_label_tokens(
    labels: Sequence[str], label_tokens: LabelTokens, tokenizer: TextTokenizer
) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for label, tokens in zip(labels, label_tokens, strict=True):
        if not tokens or (tokenizer.unk_id is not None and tokenizer.unk_id in tokens):
            raise UsageError(f"label {label!r} is unknown to the tokenizer; use another word")
        if tokens in seen:
            raise UsageError(
                f"labels {seen[tokens]!r} and {label!r} are the same tokens {list(tokens)}; "
                "use other words"
            )
        if tokenizer.task == "masked-lm" and len(tokens) != 1:
            raise UsageError(
                f"label {label!r} is {len(tokens)} tokens and one mask takes one; "
                "use a word of one token"
            )
        seen[tokens] = label


def _warnings(
    prompts: _Prompts, labels: Sequence[str], label_tokens: LabelTokens
) -> Iterator[DataWarning]:
    if prompts.unlike_rows:
        yield DataWarning(
            "label-boundary",
            f"in {prompts.unlike_rows} rows a label word changes the tokens of the prompt or has "
            "other tokens than elsewhere, so label words are tokenized alone; end the template "
            "without a space and start each label with one",
            prompts.unlike_rows,
        )
    long = [label for label, tokens in zip(labels, label_tokens, strict=True) if len(tokens) > 1]
    if long:
        yield DataWarning(
            "label-tokens",
            f"label {long[0]!r} is more than one token, so an example takes {len(labels)} "
            "sequences instead of 1; words of one token are faster",
            len(long),
        )
    empty = [label for label, n in zip(labels, prompts.class_counts, strict=True) if n == 0]
    if empty:
        yield DataWarning(
            "empty-classes",
            f"no row has the label {', '.join(map(repr, empty[:5]))}",
            len(empty),
        )
