"""What a user should know of data before tuning on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgezo.data_check.split_summary import SplitSummary
from edgezo.wording import percent
from edgezo_runtime.data.completions import ANSWER_FIELDS
from edgezo_runtime.data.label_words import LABEL_FIELD
from edgezo_runtime.errors import printable

Task = Literal["classification", "writing", "unclear"]

_FEW_ROWS = 8
"""Rows of a class below which it can hardly be learned."""

_UNEVEN = 0.8
"""Share of the largest class above which accuracy says little."""

_MOST_CLASSES = 64
_MOST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact about the data.

    Attributes:
        name: stable name for programs.
        text: for people.
        warns: should the user do something about it?
    """

    name: str
    text: str
    warns: bool = False


def task_of(train: SplitSummary) -> Task:
    """What the rows are for: a field `label` of few values makes classes of them."""
    labels = train.labels
    if labels is not None and 2 <= len(labels) <= min(_MOST_CLASSES, max(2, train.rows // 2)):
        return "classification"
    return "writing" if train.kinds and "fields" not in train.kinds else "unclear"


def written_template(train: SplitSummary) -> str | None:
    """A template for rows with an answer in a field of their own, such as those of SQuAD.

    It has the other fields that hold texts, one a line: those of many values. None where there is
    no answer, or no such field.
    """
    if task_of(train) != "unclear" or not any(name in train.fields for name in ANSWER_FIELDS):
        return None
    names = [
        name
        for name, own in train.fields.items()
        if own.texts and name not in (*ANSWER_FIELDS, "id") and name.isidentifier()
        if own.values is None or 2 * len(own.values) > train.rows
    ]
    return "".join(f"{{{name}}}\n" for name in names) or None


def find_all(splits: Mapping[str, SplitSummary]) -> list[Finding]:
    """Everything that the rows alone tell; the split "train" is there."""
    train = splits["train"]
    return [
        *_sizes(splits),
        *_tasks(train),
        *_fields(train),
        *_classes(splits),
        *_duplicates(splits),
    ]


def _sizes(splits: Mapping[str, SplitSummary]) -> list[Finding]:
    counts = ", ".join(f"{own.rows:,} {name}" for name, own in splits.items())
    found = [Finding("rows", f"{counts} rows")]
    if "valid" not in splits:
        text = "no rows for validation: a tenth of the rows is held out, of 60 rows or more"
        found.append(Finding("held-out", text))
    return found


def _tasks(train: SplitSummary) -> list[Finding]:
    task = task_of(train)
    names = ", ".join(f"'{printable(name, 40)}'" for name in train.fields)
    if task == "classification":
        labels = train.labels or Counter()
        return [Finding("task", f"classification: the field 'label' has {len(labels)} values")]
    if task == "writing":
        kinds = ", ".join(
            f"{count:,} {'row' if count == 1 else 'rows'} of kind '{kind}'"
            for kind, count in train.kinds.most_common()
        )
        found = [Finding("task", f"writing: {kinds}")]
        if len(train.kinds) > 1:
            found.append(Finding("kinds", "the rows are of several kinds; is that meant?", True))
        return found
    if written_template(train) is not None:
        answer = next(name for name in ANSWER_FIELDS if name in train.fields)
        told = f"writing: the answer is in '{answer}'; a template makes the prompt of other fields"
        return [Finding("task", told)]
    text = f"unclear: the rows have {names}; give a template that names the fields of the prompt"
    found = [Finding("task", text, True)]
    for name, own in train.fields.items():
        if own.values is not None and 2 <= len(own.values) <= 20 < train.rows:
            values = f"{len(own.values)} values"
            told = f"the field '{printable(name, 40)}' has {values}; name it 'label' to classify"
            found.append(Finding("label-field", told))
    return found


def _fields(train: SplitSummary) -> list[Finding]:
    found = []
    for name, own in train.fields.items():
        if own.empty:
            text = f"the field '{printable(name, 40)}' is empty in {_rows(own.empty)}"
            found.append(Finding("empty", text, True))
        if own.rows < train.rows and name != LABEL_FIELD:
            lacking = train.rows - own.rows
            has = "has" if lacking == 1 else "have"
            text = f"{_rows(lacking)} {has} no '{printable(name, 40)}'"
            found.append(Finding("missing", text))
    return found


def _classes(splits: Mapping[str, SplitSummary]) -> list[Finding]:
    train = splits["train"]
    labels = train.labels
    if task_of(train) != "classification" or labels is None:
        return []
    shares = [
        f"{printable(label, 30)} {percent(count / train.rows)}"
        for label, count in sorted(labels.items())[:_MOST_SHOWN]
    ]
    found = [Finding("classes", f"classes: {', '.join(shares)}")]
    largest, count = labels.most_common(1)[0]
    if count / train.rows > _UNEVEN:
        text = (
            f"uneven classes: who always says {printable(largest, 30)} is right in "
            f"{percent(count / train.rows)} of the rows; --objective f1 counts classes alike"
        )
        found.append(Finding("uneven", text, True))
    rare = [printable(label, 30) for label, own in labels.items() if own < _FEW_ROWS]
    if rare:
        text = f"classes of fewer than {_FEW_ROWS} rows: {', '.join(rare[:_MOST_SHOWN])}"
        found.append(Finding("rare", text, True))
    for name, own in splits.items():
        unknown = sorted(set(own.labels or ()) - set(labels))
        if unknown:
            listed = ", ".join(printable(label, 30) for label in unknown[:_MOST_SHOWN])
            text = f"{name} rows have labels that the train rows lack: {listed}"
            found.append(Finding("unknown-labels", text, True))
    return found


def _duplicates(splits: Mapping[str, SplitSummary]) -> list[Finding]:
    found = []
    for name, own in splits.items():
        if own.repeated:
            say = "say" if own.repeated > 1 else "says"
            text = f"{_rows(own.repeated, name)} {say} what an earlier one says"
            if own.contradicting:
                have = "have" if own.contradicting > 1 else "has"
                text += f"; {own.contradicting:,} of them {have} another label"
            found.append(Finding("repeated", text, bool(own.contradicting)))
    names = list(splits)
    pairs: Sequence[tuple[str, str]] = [
        (one, other) for at, one in enumerate(names) for other in names[at + 1 :]
    ]
    for one, other in pairs:
        shared = splits[one].shared_with(splits[other])
        if shared:
            are = "are" if shared > 1 else "is"
            text = f"{_rows(shared)} {are} in {one} and in {other}: scores on {other} flatter"
            found.append(Finding("shared", text, True))
    return found


def _rows(count: int, kind: str = "") -> str:
    """Some rows, in words."""
    words = [f"{count:,}", kind, "row" if count == 1 else "rows"]
    return " ".join(filter(None, words))
