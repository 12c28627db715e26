"""A report of runs as JSON: everything that the page shows, and the curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgezo.pictures.intervals import wilson
from edgezo.report import facts
from edgezo.report.comparison import summary
from edgezo.report.row_texts import RunTexts
from edgezo.runs.run_record import EvaluationLine, RunRecord
from edgezo_runtime.system.typed_json import encode


def report_as_json(runs: Sequence[RunRecord], texts: Sequence[RunTexts]) -> dict[str, Any]:
    """The report.

    Args:
        runs: one or more.
        texts: of each run.
    """
    return {"runs": [_run(run, own) for run, own in zip(runs, texts, strict=True)]}


def _run(run: RunRecord, texts: RunTexts) -> dict[str, Any]:
    return {
        **summary(run),
        "labels": list(run.labels),
        "kept_step": run.kept_step,
        "evaluations": [_evaluation(own) for own in run.evaluations],
        "steps_by_column": {
            name: [value if math.isfinite(value) else None for value in column]
            for name, column in _columns(run).items()
        },
        "events": [asdict(event) for event in run.events],
        "rows": encode(run.rows)["sets"],
        "texts": {
            split: {
                when: [{"line": own.row.line, "prompt": own.prompt, "answer": own.answer}
                       for own in rows]
                for when, rows in named.items()
            }
            for split, named in texts.worst.items()
        },
        "texts_note": texts.note,
        "samples": [asdict(sample) for sample in texts.samples],
        "warnings": facts.warnings(run),
        "settings": dict(run.settings),
        "receipt": dict(run.receipt),
        "digests": dict(facts.digests(run)),
        "commands": dict(facts.commands(run)),
    }  # fmt: skip


def _columns(run: RunRecord) -> dict[str, Sequence[float]]:
    return {name: getattr(run.steps, name) for name in run.steps.__slots__}


def _evaluation(found: EvaluationLine) -> dict[str, Any]:
    """An evaluation, with the Wilson interval of its accuracy."""
    entry = asdict(found)
    if found.accuracy is not None and found.rows:
        entry["accuracy_95"] = list(wilson(found.accuracy, found.rows))
    return entry
