"""The receipt of a session: its settings, its memory and its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from edgezo._version import CREATED_BY
from edgezo.cli.settings.device import device_use
from edgezo.cli.terminal.output import table
from edgezo.cli.tune.job import Job
from edgezo.wording import duration, percent, significant
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.system.sizes import format_size


def make_receipt(
    job: Job,
    result: dict[str, Any],
    *,
    peak_bytes: int,
    events: Sequence[str],
    rows_per_s: float | None,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Make the receipt of a session.

    Args:
        job: the run and its settings.
        result: the end of the session, the adapter handed out, and losses and scores.
        peak_bytes: peak of the process's resident memory.
        events: rollbacks and the like, as text.
        rows_per_s: rows of the model evaluated per second of stepping; None before a step.
        warnings: the warnings that the user saw.
    """
    run = job.run
    rates, layout = run.rates, run.trajectory.layout
    estimated, has_eps = layout.blocks, bool(layout.blocks or layout.feedback)
    names = ("before", "after", "test")
    losses = {f"loss_{name}": result.get(f"loss_{name}") for name in names}
    shares = {f"accuracy_{name}": result.get(f"accuracy_{name}") for name in names}
    if job.opened.questions:
        shares |= {f"score_{name}": result.get(f"score_{name}") for name in names}
    return {
        "status": result["status"],
        **({"error": result["error"]} if "error" in result else {}),
        "ended_by": result["ended_by"],
        "run": str(run.folder.path),
        "model": job.bundle.manifest.model.id,
        "method": run.config.method,
        "objective": run.probes.objective.reward or job.config.objective,
        "estimated_blocks": estimated,
        "first_order_blocks": run.first_order_blocks,
        "batch_size": run.batch_size,
        "rows": len(run.examples),
        "held_out": job.held_out,
        "lr": rates.lr if has_eps else None,
        "eps": rates.eps if has_eps else None,
        "first_order_lr": rates.first_order_lr if rates.num_first_order else None,
        "rates": rates.words,
        "long_rows": {
            name: dataclasses.asdict(examples.report.truncation)
            for name, examples in job.sets.items()
        },
        "events": list(events),
        "steps": run.step_number,
        "steps_planned": result["steps_planned"],
        "max_time_s": result["max_time_s"],
        "seconds": round(run.state.elapsed_s, 3),
        "rows_per_s": None if rows_per_s is None else significant(rows_per_s, 4),
        **losses,
        "loss_last": result.get("loss_last"),
        **shares,
        "peak_bytes": peak_bytes,
        "budget_bytes": job.budget,
        "predicted_bytes": job.plan.predicted_bytes,
        "plan": job.plan.as_json(),
        "scope": run.scope,
        **_memory_use(run.engine),
        "adapter": str(run.folder.adapter),
        "adapter_sha256": result["adapter_sha256"],
        "keep": job.config.keep,
        "kept_step": result["kept_step"],
        "initial_is_best": result.get("initial_is_best", False),
        "warnings": list(warnings),
        "created_by": CREATED_BY,
    }


def _memory_use(engine: Engine) -> dict[str, Any]:
    """The use of memory at the end of the session."""
    return {
        "streamed_blocks": len(engine.streamed),
        "workers": engine.limits.workers,
        "chunk_tokens": engine.limits.chunk_tokens,
        "reliefs": list(engine.reliefs),
        **device_use(engine),
    }


def held_out_words(held_out: int, tuned: int) -> str:
    """How many rows are held out, for people."""
    return f"{held_out} of {held_out + tuned} rows: evaluated on, not tuned on"


def receipt_lines(result: dict[str, Any]) -> list[str]:
    """A receipt, for people."""
    rows = [("run", str(result["run"]))]
    if result["accuracy_before"] is not None:
        change = f"{percent(result['accuracy_before'])} -> {percent(result['accuracy_after'])}"
        rows.append(("accuracy", change))
    if result.get("score_before") is not None:
        after = result["score_after"]
        change = f"{result['score_before']:.4f} -> {'-' if after is None else f'{after:.4f}'}"
        rows.append((str(result["objective"]).partition(" ")[0], change))
    if result["loss_before"] is not None:
        after = result["loss_after"]
        change = f"{result['loss_before']:.4f} -> {'-' if after is None else f'{after:.4f}'}"
        rows.append(("loss", change))
    if result["loss_test"] is not None:
        share = result["accuracy_test"]
        what = f"loss {result['loss_test']:.4f}"
        rows.append(("test", what if share is None else f"{percent(share)}, {what}"))
    if result["held_out"]:
        rows.append(("held out", held_out_words(result["held_out"], result["rows"])))
    planned = f" of {result['steps_planned']}" if result["steps_planned"] else ""
    rows.append(("steps", f"{result['steps']}{planned} in {duration(result['seconds'])}"))
    if result["kept_step"] != result["steps"]:
        last = result["loss_last"]
        end = "" if last is None else f"; the last one has loss {last:.4f}"
        rows.append(("kept", f"step {result['kept_step']}, the best evaluated{end}"))
    peak, budget = result["peak_bytes"], result["budget_bytes"]
    predicted = format_size(result["predicted_bytes"])
    peaks = f"{format_size(peak)} at the peak ({predicted} predicted)"
    rows.append(("memory", f"{peaks}, budget {format_size(budget)}"))
    if (lay := result.get("device_peak_bytes")) is not None:
        limit = result["device_budget_bytes"]
        most = "no budget" if limit is None else f"budget {format_size(limit)}"
        rows.append((str(result["device"]), f"{format_size(lay)} at the peak, {most}"))
    rows.append(("adapter", str(result["adapter"])))
    return table(rows)
