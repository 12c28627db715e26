"""A run as one line of a table."""

from __future__ import annotations

from typing import Any

from edgezo.report.charts import score_name, score_of
from edgezo.runs.run_record import EvaluationLine, RunRecord
from edgezo.wording import duration, model_name, percent
from edgezo_runtime.system.sizes import format_size

HEADER = ("run", "model", "data", "method", "before", "after", "test", "time", "peak", "state")
NUMBERS = (4, 5, 6, 7, 8)
"""Columns of numbers."""


def comparison_row(run: RunRecord) -> tuple[str, ...]:
    """The cells of a run: scores where there are any, else losses."""
    peak = run.peak_bytes
    return (
        run.name,
        model_name(run.model),
        run.data,
        run.method,
        score_text(run.before),
        score_text(run.after),
        score_text(run.test),
        duration(run.seconds),
        "-" if peak is None else format_size(peak),
        run.state,
    )


def score_text(found: EvaluationLine | None) -> str:
    """The score of an evaluation, else its loss."""
    if found is None:
        return "-"
    value = score_of(found)
    return f"loss {found.loss:.3f}" if value is None else percent(value)


def summary(run: RunRecord) -> dict[str, Any]:
    """The same for machines; what is not known is None."""
    entries: dict[str, Any] = {
        "run": str(run.folder.path),
        "model": run.model,
        "data": run.data,
        "method": run.method,
        "score": score_name(run),
    }
    for name, found in (("before", run.before), ("after", run.after), ("test", run.test)):
        entries[f"score_{name}"] = None if found is None else score_of(found)
        entries[f"loss_{name}"] = None if found is None else found.loss
    return {
        **entries,
        "steps": int(run.steps.step[-1]) if len(run.steps) else 0,
        "seconds": round(run.seconds, 3),
        "peak_bytes": run.peak_bytes,
        "budget_bytes": run.budget_bytes,
        "state": run.state,
        "written": run.written or None,
    }
