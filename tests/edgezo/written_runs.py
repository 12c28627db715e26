"""Run folders written by hand, as `edgezo tune` leaves them, with numbers of our own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

LEDGER = {
    "process": 60_000_000, "data": 16_000_000, "graphs": 0, "adapter": 7_000_000,
    "blocks": 100_000_000, "activations": 65_000_000, "reserve": 252_000_000,
}  # fmt: skip


def step_line(step: int, **changes: Any) -> dict[str, Any]:
    """A step whose loss falls; it took a quarter of a second."""
    return {
        "event": "step", "step": step, "loss": 1 / (1 + step / 20) + 0.1 * math.sin(step),
        "projected_grad": 1.5, "lr": 0.01 * (1 - step / 200), "blocks": [0], "rows": 16,
        "tokens": 160, "elapsed_s": 0.25, "memory_bytes": 250_000_000 + 1000 * step,
        "peak_bytes": 300_000_000, **changes,
    }  # fmt: skip


def eval_line(when: str, step: int, loss: float, accuracy: float | None, **more: Any) -> Any:
    """An evaluation of 50 rows for validation."""
    return {
        "event": "eval", "split": "valid", "when": when, "step": step, "seconds": step / 4,
        "rows": 50, "loss": loss, "accuracy": accuracy, **more,
    }  # fmt: skip


def kept_row(line: int, loss: float, **changes: Any) -> dict[str, Any]:
    """A row of two classes that is taken for the wrong one."""
    row = {"line": line, "loss": loss, "tokens": [1, 2, 3], "answer": 3, "label": 0}
    return {**row, "predicted": 1, **changes}


def rows_file(worst: int = 10) -> dict[str, Any]:
    """Results of single rows before and after."""
    kept = [kept_row(number + 1, 5.0 - number / 4) for number in range(worst)]
    before = {"step": 0, "rows": 50, "loss": 0.9, "confusion": [[5, 20], [4, 21]], "worst": kept}
    after = {"step": 40, "rows": 50, "loss": 0.4, "confusion": [[20, 5], [3, 22]], "worst": kept}
    return {"version": 1, "sets": {"valid": {"before": before, "after": after}}}


def receipt(**changes: Any) -> dict[str, Any]:
    """A run that is done: 80 steps, of which step 40 was the best."""
    return {
        "status": "done", "ended_by": "steps", "model": "some/model-1M", "method": "auto",
        "objective": "loss", "rows": 900, "held_out": 100, "steps": 80, "steps_planned": 80,
        "rows_per_s": 64.0, "peak_bytes": 301_000_000, "budget_bytes": 500_000_000,
        "predicted_bytes": 290_000_000, "scope": "answer", "workers": 2, "chunk_tokens": 256,
        "streamed_blocks": 0, "kept_step": 40, "rates": "lr 0.01", "adapter_sha256": "ab" * 32,
        "plan": {
            "ledger": LEDGER, "smallest_bytes": 180_000_000,
            "gains": [{"budget_bytes": 900_000_000, "speedup": 1.25}],
        },
        "reliefs": [], "warnings": ["3 rows are cut: <b>& more</b>"], "events": [], **changes,
    }  # fmt: skip


def written_run(
    folder: Path,
    *,
    metrics: list[Any] | None = None,
    settings: dict[str, Any] | None = None,
    ended: dict[str, Any] | None = None,
    rows: dict[str, Any] | None = None,
) -> Path:
    """Write a run: 80 steps with evaluations before, at step 40 and after, unless others are given.

    Args:
        folder: to be made.
        metrics: lines of metrics.jsonl.
        settings: config.json.
        ended: receipt.json; {} leaves it out.
        rows: rows.json; {} leaves it out.
    """
    folder.mkdir(parents=True)
    if metrics is None:
        steps = [step_line(step) for step in range(80)]
        pressure = {"event": "pressure", "step": 10, "relief": "memory is short: 1 of 2 workers"}
        metrics = [
            eval_line("before", 0, 0.9, 0.52), *steps[:10], pressure, *steps[10:40],
            eval_line("during", 40, 0.4, 0.84), *steps[40:], eval_line("after", 80, 0.45, 0.82),
            eval_line("after", 40, 0.42, 0.8, split="test", rows=200),
        ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    known = {
        "created_by": "edgezo 0.1.0",
        "bundle": "/nowhere/model.bundle",
        "data": "/data/reviews/train.jsonl",
        "label": [" bad", " good"],
        "method": "auto",
        "max_seq": 64,
    }
    (folder / "config.json").write_text(json.dumps(known if settings is None else settings))
    for name, content, usual in (
        ("receipt.json", ended, receipt()),
        ("rows.json", rows, rows_file()),
    ):
        chosen = usual if content is None else content
        if chosen:
            (folder / name).write_text(json.dumps(chosen))
    return folder
