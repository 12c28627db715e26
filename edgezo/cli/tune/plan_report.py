"""The plan of a run and its memory limits, for people and for machines."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgezo.cli.terminal.output import print_result, table, warn
from edgezo.cli.tune.job import Job
from edgezo.cli.tune.receipt import held_out_words
from edgezo_runtime.budget.ledger import MEANING
from edgezo_runtime.budget.memory_limits import memory_limits
from edgezo_runtime.system.sizes import format_size


def print_plan(
    job: Job,
    more: dict[str, Any],
    more_rows: list[tuple[str, str]],
    *,
    enforce: bool,
    as_json: bool,
) -> None:
    """Print the plan of a run.

    Args:
        job: the run.
        more: entries of the result before the plan.
        more_rows: rows of the table before the plan.
        enforce: show the memory limits as well.
        as_json: print JSON.
    """
    for text in job.warnings:
        warn(text)
    train = job.sets["train"]
    result = {
        **more,
        "model": job.bundle.manifest.model.id,
        "batch_size": job.run.batch_size,
        "longest": int(train.lengths().max()),
        "held_out": job.held_out,
        "scope": job.run.scope,
        **job.plan.as_json(),
        **_device_entries(job),
        "warnings": list(job.warnings),
    }
    lines = table([*more_rows, *_rows(job)])
    lines += ["", *_ledger_lines(job), "", *_device_lines(job), *_gain_lines(job)]
    if enforce:
        result["memory_limits"] = limit_entries(job)
        lines += ["", *limit_lines(job)]
    print_result(result, lines, as_json)


def limit_entries(job: Job) -> list[dict[str, Any]]:
    """The memory limits of a run, for machines."""
    return [dataclasses.asdict(limit) for limit in memory_limits(job.run.engine)]


def limit_lines(job: Job) -> list[str]:
    """The memory limits of a run, for people."""
    return table(
        [
            (limit.name, f"{'on ' if limit.active else 'off'}  {limit.detail}")
            for limit in memory_limits(job.run.engine)
        ]
    )


def _rows(job: Job) -> list[tuple[str, str]]:
    plan = job.plan
    train = job.sets["train"]
    rows = [
        ("model", f"{job.bundle.manifest.model.id} ({job.bundle.manifest.quant})"),
        (
            "step",
            f"{job.run.batch_size} rows of up to {train.lengths().max()} tokens, each evaluated "
            f"{_times(job.run.groups)}, scope {job.run.scope}",
        ),
        ("choice", plan.words()),
    ]
    if job.held_out:
        rows.append(("held out", held_out_words(job.held_out, len(train))))
    if plan.cache_bytes:
        rows.append(("on disk", f"{format_size(plan.cache_bytes)} of cached states"))
    return rows


def _ledger_lines(job: Job) -> list[str]:
    plan = job.plan
    parts = [(name, size, MEANING[name]) for name, size in plan.ledger.parts().items()]
    lines = [(name, size, text) for name, size, text in parts if size]
    if plan.ledger.start > plan.ledger.steady:
        lines.append(("before", plan.ledger.start, "peak while libraries and data were loaded"))
    lines.append(("peak", plan.predicted_bytes, "predicted peak of the process"))
    lines.append(("reserve", plan.reserve_bytes, "budget less the peak"))
    lines.append(("budget", plan.budget_bytes, f"--budget {job.inputs.budget}"))
    width = max(len(name) for name, _, _ in lines)
    return [
        f"{name:<{width}}  {format_size(size):>8}  {text}".rstrip() for name, size, text in lines
    ]


def _device_entries(job: Job) -> dict[str, Any]:
    plan = job.opened.device_plan
    if plan is None:
        return {"device": job.run.engine.model.device.name}
    return {
        "device": plan.device,
        "device_plan": {
            "budget_bytes": plan.budget_bytes,
            "predicted_bytes": plan.predicted_bytes,
            "ledger": plan.parts(),
            "streamed_blocks": plan.streamed,
            "chunk_tokens": plan.chunk_tokens,
        },
    }


def _device_lines(job: Job) -> list[str]:
    """What lies on a GPU, part by part."""
    plan = job.opened.device_plan
    if plan is None:
        return []
    count = job.run.engine.num_blocks
    lines = [
        ("blocks", plan.blocks, f"{plan.streamed} of {count} copied there for each use"),
        ("vocabulary", plan.vocabulary, "weights of the scorers"),
        ("passes", plan.passes, f"states, copies, results; chunks of {plan.chunk_tokens} tokens"),
        *(
            [("workspace", plan.workspace, "expected inside the graph of a block that goes back")]
            if plan.workspace
            else []
        ),
        ("peak", plan.predicted_bytes, f"predicted peak on the device {plan.device}"),
    ]
    if plan.budget_bytes is not None:
        lines.append(("budget", plan.budget_bytes, f"--device-budget {job.inputs.device_budget}"))
    return [f"{name:<10}  {format_size(size):>8}  {text}" for name, size, text in lines] + [""]


def _gain_lines(job: Job) -> list[str]:
    plan = job.plan
    lines = [f"smallest sufficient budget: {format_size(plan.smallest_bytes, up=True)}"]
    for gain in plan.gains:
        lines.append(
            f"{format_size(gain.budget_bytes, up=True)} would make a step about "
            f"{gain.speedup:.2f} times as fast: {gain.choice.words(plan.num_blocks)}"
        )
    if not plan.gains and not plan.choice.streamed:
        lines.append("a larger budget would not make a step faster")
    return lines


def _times(count: int) -> str:
    """A number of times, in words."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
