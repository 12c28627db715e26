"""A report of runs as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edgezo.report import facts
from edgezo.report.comparison import HEADER, NUMBERS, comparison_row
from edgezo.report.row_texts import RowText, RunTexts
from edgezo.runs.run_record import RunRecord
from edgezo_runtime.system.sizes import format_size

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~])")
_MOST = 300


def markdown(runs: Sequence[RunRecord], texts: Sequence[RunTexts]) -> str:
    """The report; curves are left out.

    Args:
        runs: one or more.
        texts: of each run.
    """
    title = "# Run" if len(runs) == 1 else f"# {len(runs)} runs compared"
    parts = [title, _table(HEADER, map(comparison_row, runs), NUMBERS)]
    for run, own in zip(runs, texts, strict=True):
        parts += _run(run, own)
    return "\n\n".join(part for part in parts if part) + "\n"


def _run(run: RunRecord, texts: RunTexts) -> list[str]:
    head = [(card.label, card.value, card.note) for card in facts.cards(run)]
    parts = [f"## {_plain(run.name)}", _table(("what", "value", "note"), head)]
    found = facts.warnings(run)
    parts += ["### Warnings", _list(found)] if found else []
    evaluations = [
        (own.split, own.when, f"{own.step:,}", f"{own.loss:.4f}", facts.shown(own.accuracy),
         facts.shown(own.score))
        for own in run.evaluations
    ]  # fmt: skip
    header = ("set", "when", "step", "loss", "accuracy", "score")
    parts += ["### Evaluations", _table(header, evaluations, (2, 3, 4, 5))] if evaluations else []
    for split, own in run.rows.sets.items():
        for when, results in own.items():
            if results.confusion:
                parts += _confusion(run, f"{split} rows, {when} tuning", results.confusion)
    for split, named in texts.worst.items():
        for when, rows in named.items():
            title = f"### Rows with the largest losses: {split} rows, {when} tuning"
            parts += [title, _list(_row(row) for row in rows)]
    parts += [f"Single rows: {_plain(texts.note)}"] if texts.note else []
    for sample in texts.samples:
        parts += ["### Texts before and after", _table(
            ("prompt", "before", "after", "the row says"),
            [(sample.prompt, sample.before, sample.after, sample.right)])]  # fmt: skip
    parts += _memory(run)
    parts += ["### Settings", _table(("setting", "value"), facts.settings(run))]
    lines = "\n".join(
        f"# {name}\n{line}"
        for name, line in facts.commands(run)
        if len(line.splitlines()) == 1  # a path with a line end could end the fence
    )
    parts += ["### Repeat, check and use it", f"```sh\n{lines}\n```"]
    digests = [(name, f"`{own}`") for name, own in facts.digests(run)]
    return [*parts, "### SHA-256", _table(("of", "digest"), digests, raw=(1,))]


def _memory(run: RunRecord) -> list[str]:
    rows = facts.memory_rows(run)
    ledger = [(name, format_size(size), meaning) for name, size, meaning in facts.ledger(run)]
    parts = ["### Memory", _table(("what", "value"), rows)] if rows else []
    return [*parts, _table(("part", "size", "what it is"), ledger, (1,))] if ledger else parts


def _confusion(run: RunRecord, title: str, counts: Sequence[Sequence[int]]) -> list[str]:
    labels = run.labels if len(run.labels) == len(counts) else list(map(str, range(len(counts))))
    rows = [(label, *map(str, row)) for label, row in zip(labels, counts, strict=True)]
    header = ("right, then predicted", *labels)
    return [f"### Confusion: {title}", _table(header, rows, tuple(range(1, len(header))))]


def _row(found: RowText) -> str:
    row = found.row
    return f"line {row.line}, loss {row.loss:.3f}, right {found.answer.strip()}: {found.prompt}"


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    *,
    raw: Sequence[int] = (),
) -> str:
    """A table; "" without rows. Columns in `raw` are Markdown already."""
    lines = [
        "| " + " | ".join(own if at in raw else _plain(own) for at, own in enumerate(row)) + " |"
        for row in rows
    ]
    if not lines:
        return ""
    kinds = ["--:" if at in numbers else "---" for at in range(len(header))]
    head = ["| " + " | ".join(map(_plain, header)) + " |", "|" + "|".join(kinds) + "|"]
    return "\n".join([*head, *lines])


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {_plain(item)}" for item in items)


def _plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    short = text if len(text) <= _MOST else text[:_MOST] + "..."
    return _SPECIAL.sub(r"\\\1", " ".join(short.split()))
