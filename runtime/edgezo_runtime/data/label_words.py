"""Classification by label words: the class whose word continues the prompt best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgezo_runtime.data.example_set import DataWarning, Example, Kind, TruncationReport
from edgezo_runtime.data.records import Row
from edgezo_runtime.data.template import Template, kind_of, list_fields
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.data.truncation import Fitted, fit_prompt
from edgezo_runtime.errors import DataError, UsageError

LABEL_FIELD = "label"

LabelTokens = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Examples of a labelled file, with what `ExampleSet` and its report need."""

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
        UsageError: fewer than two, an empty one, or two that differ in spaces only.
    """
    if len(labels) < 2:
        raise UsageError(
            f"{len(labels)} label word: classification needs two or more; give one --label a class"
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
        fields: the row; its field "label" is the class's index, or its word without the spaces
            around it.
        labels: the label words.
        where: file and line, for the message.

    Returns:
        0 to len(labels) - 1.

    Raises:
        DataError: no such field, or not one of the classes.
    """
    if LABEL_FIELD not in fields:
        raise DataError(f"{where}: no field '{LABEL_FIELD}'; the row has {list_fields(fields)}")
    value = fields[LABEL_FIELD]
    if isinstance(value, str):
        words = [label.strip() for label in labels]
        if value.strip() in words:
            return words.index(value.strip())
        known = ", ".join(f"'{word}'" for word in words[:20])
        raise DataError(f"{where}: label '{value:.40}' is none of {known}; see --label")
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(
            f"{where}: field '{LABEL_FIELD}' is {kind_of(value)}, "
            f"expected 0 to {len(labels) - 1} or a label word"
        )
    if not 0 <= value < len(labels):
        raise DataError(
            f"{where}: label {value!s:.20}, expected 0 to {len(labels) - 1} for {len(labels)} "
            "label words; give one --label a class, in class order"
        )
    return value


def build_labelled(
    rows: Callable[[], Iterable[Row]],
    tokenizer: TextTokenizer,
    template: Template,
    labels: Sequence[str],
    max_seq: int,
    *,
    known: LabelTokens | None = None,
    with_class: bool = True,
) -> LabelledRows:
    """Tokenize rows whose class is a label word after the prompt, or at the mask.

    The tokens of a label word are those it adds to the prompt when both are tokenized together.
    If that changes the prompt's own tokens, or gives other label tokens in another row, every
    label word is tokenized alone, and a warning says in how many rows.

    Args:
        rows: starts a new pass over the rows; one pass is enough unless a label word turns out
            longer after a prompt than alone.
        tokenizer: the tokenizer.
        template: the prompt.
        labels: one word a class.
        max_seq: longest input.
        known: tokens of the label words, where other rows have settled them.
        with_class: rows have their class; False for rows that are to be classified.

    Returns:
        The examples: kind "labels" if every label word is one token, else "candidates".

    Raises:
        UsageError: label words that cannot be told apart, or unknown to the tokenizer.
        DataError: a row without its fields or class, or a template too long for `max_seq`.
    """
    labels = check_labels(labels)
    alone = tuple(tuple(tokenizer.encode(label, add_special=False)) for label in labels)
    reserve = max(map(len, known or alone))  # tokens kept free for the longest label word
    while True:
        prompts = _Prompts(
            tokenizer, template, labels, alone, max_seq - max(reserve - 1, 0), with_class
        )
        examples = tuple(prompts.example(index, row) for index, row in enumerate(rows()))
        label_tokens = known or prompts.label_tokens()
        if max(map(len, label_tokens)) <= reserve:
            break
        reserve = max(map(len, label_tokens))
    _check_label_tokens(labels, label_tokens, tokenizer)
    return LabelledRows(
        kind="labels" if all(len(tokens) == 1 for tokens in label_tokens) else "candidates",
        examples=examples,
        label_tokens=label_tokens,
        truncation=prompts.truncation,
        class_counts=tuple(prompts.class_counts),
        warnings=tuple(_warnings(prompts, labels, label_tokens)),
    )


class _Prompts:
    """One pass over the rows: tokenizes prompts and watches where label words begin."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: Template,
        labels: tuple[str, ...],
        alone: LabelTokens,
        limit: int,
        with_class: bool,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.labels = labels
        self.alone = alone
        self.limit = limit
        self.with_class = with_class
        self.masked = tokenizer.task == "masked-lm"
        self.joined: LabelTokens | None = None
        self.unlike_rows = 0
        self.truncation = TruncationReport()
        self.class_counts = [0] * len(labels)

    def example(self, index: int, row: Row) -> Example:
        values = self.template.values(row.fields, row.where)
        label = class_of(row.fields, self.labels, row.where) if self.with_class else 0
        prompt = fit_prompt(self.template, values, self.tokenizer, self.limit, row.where)
        if not prompt.tokens:
            raise DataError(f"{row.where}: the prompt is empty; fill the fields of the template")
        place = self._mask(prompt, row.where) if self.masked else len(prompt.tokens) - 1
        if not self.masked:
            self._watch(prompt)
        self.truncation = self.truncation.plus(prompt.dropped)
        self.class_counts[label] += 1
        tokens = np.array(prompt.tokens, np.int32)
        return Example(index, row.line, tokens, np.array([place], np.int32), label)

    def label_tokens(self) -> LabelTokens:
        return self.alone if self.joined is None or self.unlike_rows else self.joined

    def _watch(self, prompt: Fitted) -> None:
        """Compare the label tokens after this prompt with those after the first one."""
        found = tuple(self._after(prompt, label) for label in self.labels)
        if self.joined is None and all(found):
            self.joined = found
        if not all(found) or found != self.joined:
            self.unlike_rows += 1

    def _after(self, prompt: Fitted, label: str) -> tuple[int, ...]:
        """The tokens a label adds to a prompt; none if the prompt's own tokens change."""
        both = self.tokenizer.encode(prompt.text + label, add_special=True)
        size = len(prompt.tokens)
        return tuple(both[size:]) if both[:size] == prompt.tokens else ()

    def _mask(self, prompt: Fitted, where: str) -> int:
        count = prompt.tokens.count(self.tokenizer.mask_id or 0)
        if count != 1:
            mask = self.tokenizer.token_text(self.tokenizer.mask_id)
            raise DataError(
                f"{where}: the prompt has {count} times '{mask}', expected once; put '{mask}' "
                "into the template where the label word belongs, and not into the data"
            )
        return prompt.tokens.index(self.tokenizer.mask_id or 0)


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
                "use a word that is one token"
            )
        seen[tokens] = label


def _warnings(
    prompts: _Prompts, labels: Sequence[str], label_tokens: LabelTokens
) -> Iterator[DataWarning]:
    if prompts.unlike_rows:
        yield DataWarning(
            "label-boundary",
            f"in {prompts.unlike_rows} rows the end of the prompt and a label word do not "
            "tokenize as they do apart, so label words are tokenized alone; end the template "
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
