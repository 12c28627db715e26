"""The part of a page that is about one run."""

from __future__ import annotations

from collections.abc import Sequence

from edgezo.pictures.bars import gauge
from edgezo.pictures.intervals import interval_chart
from edgezo.pictures.matrix import confusion_matrix
from edgezo.pictures.svg import escaped
from edgezo.report import facts
from edgezo.report.charts import (
    gradient_chart,
    loss_chart,
    memory_chart,
    rate_chart,
    score_chart,
    throughput_chart,
)
from edgezo.report.page_parts import SMALL, block, figure, folded, ledger_panel, named_rows, text
from edgezo.report.row_texts import RowText, RunTexts
from edgezo.runs.run_record import RunRecord

SPLITS = {"valid": "rows for validation", "test": "test rows"}
WHENS = {"before": "before tuning", "after": "after tuning"}


def run_section(run: RunRecord, texts: RunTexts) -> list[str]:
    """Everything about one run."""
    return [
        card_grid(run),
        *_warnings(run),
        *_learning(run),
        *_accuracy(run),
        *_memory(run),
        *_worst_rows(run, texts),
        *_samples(texts),
        *_details(run),
    ]


def card_grid(run: RunRecord) -> str:
    """The numbers at the head."""
    return block("div", *map(_card, facts.cards(run)), cls="cards")


def _card(card: facts.Card) -> str:
    tone = {None: "", True: " good", False: " bad"}[card.good]
    parts = [
        text("div", card.label, "label"),
        text("div", card.value, "value"),
        text("div", card.note, f"note{tone}"),
    ]
    if card.share is not None:
        parts.append(gauge(f"{card.label}: {card.value} {card.note}", card.share, card.mark, 220))
    return block("div", *parts, cls="panel card")


def _warnings(run: RunRecord) -> list[str]:
    found = facts.warnings(run)
    if not found:
        return []
    items = [text("li", line) for line in found]
    return [text("h2", "Warnings"), block("ul", *items, cls="notes")]


def _learning(run: RunRecord) -> list[str]:
    found = [figure(loss_chart([run]), wide=True)]
    scores = score_chart([run])
    if scores is not None:
        sub = "shaded: Wilson intervals, 95 %" if scores.bands else ""
        found.append(figure(scores, sub=sub))
    found += [figure(rate_chart([run])), figure(throughput_chart([run]))]
    gradients = gradient_chart([run])
    last = _intervals(run) or (None if gradients is None else figure(gradients))
    found += [] if last is None else [last]
    return [
        text("h2", "Learning"),
        block("div", *found, cls="grid"),
        *_happenings(run, "divergence", "Rollbacks"),
    ]


def _happenings(run: RunRecord, kind: str, title: str) -> list[str]:
    """The events that a chart numbers."""
    found = facts.happenings(run, kind)
    if not found:
        return []
    rows = [(f"{number}: step {step}", what) for number, (step, what) in enumerate(found, 1)]
    return [block("div", text("h3", title), named_rows(rows), cls="panel below")]


def _intervals(run: RunRecord) -> str:
    """Accuracies before and after with their intervals; "" where rows have no classes."""
    found = facts.shares(run)
    if not found:
        return ""
    chart = interval_chart("Accuracy with Wilson intervals", found, SMALL[0])
    head = text("h3", "Accuracy") + text("div", "dots with Wilson intervals, 95 %", "sub")
    return block("figure", block("figcaption", head), chart, cls="panel")


def _accuracy(run: RunRecord) -> list[str]:
    panels = [
        _confusion(run, split, when)
        for split, own in run.rows.sets.items()
        for when in ("before", "after")
        if when in own and own[when].confusion
    ]
    return (
        [text("h2", "Right and wrong"), block("div", *panels, cls="grid matrices")]
        if panels
        else []
    )


def _confusion(run: RunRecord, split: str, when: str) -> str:
    results = run.rows.sets[split][when]
    labels = run.labels
    if len(labels) != len(results.confusion):
        labels = tuple(map(str, range(len(results.confusion))))
    right = sum(results.confusion[index][index] for index in range(len(labels)))
    title = f"Confusion {WHENS[when]}"
    sub = f"{SPLITS.get(split, split)}: {right} of {results.rows} right"
    head = text("h3", title) + text("div", sub, "sub")
    chart = confusion_matrix(f"{title}, {sub}", labels, results.confusion)
    return block("figure", block("figcaption", head), chart, cls="panel")


def _memory(run: RunRecord) -> list[str]:
    parts = facts.ledger(run)
    chart = memory_chart([run])
    if not parts and not any(line.points for line in chart.lines):
        return []
    found = [block("div", figure(chart, wide=True), _memory_table(run), cls="grid")]
    found += _happenings(run, "pressure", "Measures against short memory")
    if parts:
        found.append(ledger_panel(parts))
    return [text("h2", "Memory"), *found]


def _memory_table(run: RunRecord) -> str:
    rows = facts.memory_rows(run)
    return block("div", text("h3", "How memory is kept"), named_rows(rows, loose=True), cls="panel")


def _worst_rows(run: RunRecord, texts: RunTexts) -> list[str]:
    found: list[str] = []
    for split, own in texts.worst.items():
        for when in ("after", "before"):
            rows = own.get(when)
            if not rows:
                continue
            items = block("ol", *(_row(row, run.labels) for row in rows), cls="rows")
            title = f"{SPLITS.get(split, split)}, {WHENS[when]}"
            if when == "after" and not found:
                found.append(block("div", text("h3", title.capitalize()), items, cls="panel"))
            else:
                found.append(folded(title.capitalize(), block("div", items, cls="panel")))
    if not found and not texts.note:
        return []
    note = [text("p", texts.note, "muted")] if texts.note else []
    return [text("h2", "Rows with the largest losses"), *note, *found]


def _row(row: RowText, labels: Sequence[str]) -> str:
    kept = row.row
    parts = [text("span", f"line {kept.line}"), text("span", f"loss {kept.loss:.3f}")]
    if kept.predicted >= 0:
        wrong = kept.predicted != kept.label
        name = labels[kept.predicted] if kept.predicted < len(labels) else str(kept.predicted)
        parts.append(text("span", f"predicted {name.strip()}", "bad" if wrong else "good"))
        parts.append(text("span", f"right {row.answer.strip()}"))
        body = escaped(row.prompt)
    else:
        body = escaped(row.prompt) + " " + text("span", row.answer.strip(), "answer")
    return block("li", block("div", *parts, cls="facts"), block("div", body, cls="text"))


def _samples(texts: RunTexts) -> list[str]:
    if not texts.samples:
        return []
    items = []
    for sample in texts.samples:
        columns = [
            block("div", text("div", name, "sub"), text("div", content, "text"))
            for name, content in (
                ("before tuning", sample.before),
                ("after tuning", sample.after),
                ("the row says", sample.right),
            )
        ]
        prompt = text("div", sample.prompt, "text mono")
        items.append(block("li", prompt, block("div", *columns, cls="sample")))
    body = block("div", block("ol", *items, cls="rows"), cls="panel")
    return [text("h2", "Texts before and after"), body]


def _details(run: RunRecord) -> list[str]:
    commands = "".join(
        text("div", name, "sub") + text("pre", line) for name, line in facts.commands(run)
    )
    found = [
        text("h2", "Settings"),
        block(
            "div",
            named_rows(facts.settings(run)),
            folded("Every setting", named_rows(facts.all_settings(run))),
            cls="panel",
        ),
        text("h2", "Repeat, check and use it"),
        block("div", commands, cls="panel"),
        text("h2", "Receipt and digests"),
    ]
    receipt = facts.receipt_rows(run)
    digests = named_rows(facts.digests(run), mono=True)
    parts = [text("h3", "SHA-256"), digests]
    if receipt:
        parts.append(folded("Receipt", named_rows(receipt)))
    return [*found, block("div", *parts, cls="panel")]
