"""All methods on the same tasks: accuracy, time, forwards and memory.

    python -m tests.benchmarks.methods [--methods all|a,b,c] [--tasks sst2,...] [--seeds 0,...]
        [--max-time 4m] [--eval-every 20s] [--budget 1GB] [--model MODEL] [--bundle BUNDLE]
        [--data FOLDER] [--output FOLDER] [--resume] [--only-report] [-- ARGS]

Runs `edgezo tune` for every method, task and seed, one after the other, each with the settings of
the method and with --lr auto --eps auto; arguments after "--" go to every run unchanged. "auto"
takes exact gradients, and "auto-estimates" is the same method without them (--first-order 0, and
the layers that estimates take, as it would learn feedback otherwise). A method with trainables of
its own (adazeta, qzo) runs on a bundle that is exported for it into the output folder; all others
run on the default bundle or the named one.

Prints one table per task, best method first. Accuracy on the validation rows: before, after (the
mean over the seeds, the smallest and the largest), and at the forwards and seconds that all methods
had (a run that ended earlier has its last accuracy). Accuracy on the test rows, if there are any.
Steps, forwards (rows of the model evaluated), median seconds per step, peak memory. Seconds are
those of tuning, calibration included; forwards are those of the steps alone. A picture of accuracy
over seconds and over forwards is saved for every task.

Results go to results.jsonl of the output folder as runs end: --resume runs the missing ones,
--only-report runs nothing. A method that cannot run is a row with the reason.

All methods take 24 times --max-time per task and seed, and a sixth more for evaluations.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgezo_runtime.methods.catalogue import METHODS
from tests.benchmarks import models
from tests.benchmarks.curves import common_end, mean_at, read_metrics, read_points
from tests.benchmarks.methods_picture import draw
from tests.benchmarks.result_file import DONE, FAILED, MISSING, ResultFile, points_of
from tests.benchmarks.targets import DATA, missing_data, parser, print_table
from tests.benchmarks.tasks import TASKS, find_rows
from tests.benchmarks.tune_child import edgezo, tune

KEYS = ("method", "task", "seed")
FLAGS = {name: ["--method", name] for name in METHODS}
FLAGS["auto-estimates"] = ["--method", "auto", "--first-order", "0", "--modules", "down_proj"]
HEAD = (
    "method", "before", "after", "of seeds", "equal forwards", "equal time", "test",
    "steps", "forwards", "s per step", "peak MB",
)  # fmt: skip


class Bundles:
    """The bundle of every kind of trainables, exported at first use."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    def find(self, scheme: str | None) -> Path | None:
        """A bundle, or None for the embedded default.

        Raises:
            RuntimeError: it cannot be exported.
        """
        if scheme is None and (self._options.bundle or self._options.model is None):
            return self._options.bundle  # type: ignore[no-any-return]
        name = scheme or "default"
        folder: Path = self._options.output / "bundles" / name
        if not (folder / "manifest.json").is_file():
            print(f"exporting the bundle {name}", flush=True)
            trainable = ["--trainable", scheme] if scheme else []
            command = ["export", models.model_name(self._options), "-o", str(folder), *trainable]
            edgezo(command, self._options.output / "logs" / f"export-{name}.log")
        return folder


def run_one(
    method: str, task: str, seed: int, options: argparse.Namespace, bundles: Bundles
) -> dict[str, Any]:
    """Tune once; an error becomes a result."""
    run = {"method": method, "task": task, "seed": seed}
    scheme = METHODS[FLAGS[method][1]].scheme
    try:
        bundle = bundles.find(scheme)
    except RuntimeError as error:
        reason = f"no bundle with --trainable {scheme}: {error}"
        return {**run, "status": MISSING, "reason": reason}
    name = f"{task}-{method}-{seed}"
    folder: Path = options.output / "runs" / name
    if folder.exists():  # what is left of a run that was stopped
        shutil.rmtree(folder)
    try:
        receipt = tune(
            find_rows(task, options.data),
            folder,
            seed=seed,
            budget=options.budget,
            max_time=options.max_time,
            bundle=bundle,
            extra=[*FLAGS[method], "--eval-every", options.eval_every, *options.extra],
            log=options.output / "logs" / f"{name}.log",
        )
    except RuntimeError as error:
        return {**run, "status": FAILED, "reason": str(error)}
    return {**run, "status": DONE, **summary(receipt, folder / "metrics.jsonl")}


def summary(receipt: dict[str, Any], metrics: Path) -> dict[str, Any]:
    """Summary of a run, for the results."""
    steps = [entry for entry in read_metrics(metrics) if entry["event"] == "step"]
    return {
        "before": receipt["accuracy_before"],
        "after": receipt["accuracy_after"],
        "test": receipt["accuracy_test"],
        "steps": receipt["steps"],
        "seconds": receipt["seconds"],
        "forwards": sum(entry["rows"] for entry in steps),
        "step_s": statistics.median(entry["elapsed_s"] for entry in steps) if steps else None,
        "peak_mb": receipt["peak_bytes"] / 1e6,
        "points": [dataclasses.astuple(point) for point in read_points(metrics)],
    }


def by_method(results: Sequence[dict[str, Any]], task: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of a task that were done, best method first."""
    done: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if result["task"] == task and result["status"] == DONE:
            done.setdefault(result["method"], []).append(result)
    return dict(sorted(done.items(), key=lambda item: -mean(item[1], "after")))


def mean(results: Sequence[dict[str, Any]], field: str) -> float:
    """Mean over the seeds."""
    return statistics.fmean(result[field] for result in results)


def spread(results: Sequence[dict[str, Any]], field: str) -> str | None:
    """Smallest and largest over the seeds; None for a single seed."""
    found = [result[field] for result in results]
    return f"{min(found):.3f} to {max(found):.3f}" if len(found) > 1 else None


def report(results: Sequence[dict[str, Any]]) -> None:
    """Print one table per task, and the methods that could not run."""
    for task in dict.fromkeys(result["task"] for result in results):
        done = by_method(results, task)
        print(f"\n{task}")
        if done:
            print_table(HEAD, table_rows(done))
    for result in results:
        if result["status"] != DONE:
            where = f"{result['method']} on {result['task']}, seed {result['seed']}"
            print(f"{result['status']}: {where}: {result['reason']}")


def table_rows(done: dict[str, list[dict[str, Any]]]) -> list[list[object]]:
    """One row per method."""
    curves = {method: [points_of(result) for result in results] for method, results in done.items()}
    everything = [points for found in curves.values() for points in found]
    forwards, seconds = (common_end(everything, axis) for axis in ("forwards", "seconds"))  # type: ignore[arg-type]
    rows: list[list[object]] = []
    for method, results in done.items():
        cells: list[object] = [
            mean(results, "before"),
            mean(results, "after"),
            spread(results, "after"),
            mean_at(curves[method], forwards, "forwards"),
            mean_at(curves[method], seconds, "seconds"),
            mean(results, "test") if results[0]["test"] is not None else None,
            round(mean(results, "steps")),
            round(mean(results, "forwards")),
            mean(results, "step_s"),
            round(max(result["peak_mb"] for result in results)),
        ]
        rows.append([method, *("-" if cell is None else cell for cell in cells)])
    return rows


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """Names of a list, or all.

    Raises:
        SystemExit: one is unknown.
    """
    names = list(known) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(
            f"--{what} {','.join(unknown)}: expected some of {', '.join(known)}, or all"
        )
    return names


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    found = parser(__doc__)
    found.add_argument("--methods", default="all", metavar="NAME,...")
    found.add_argument("--tasks", default="sst2", metavar="NAME,...")
    found.add_argument("--seeds", default="0", metavar="N,...")
    found.add_argument("--max-time", default="4m")
    found.add_argument("--eval-every", default="20s")
    found.add_argument("--budget", default="1GB", metavar="SIZE")
    found.add_argument("--model", metavar="MODEL", help="Hugging Face id, folder or .gguf file")
    found.add_argument(
        "--bundle", type=Path, help="bundle of all methods that do not need their own"
    )
    found.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    now = time.strftime("%Y%m%d-%H%M%S")
    found.add_argument("--output", type=Path, default=Path("runs", f"methods-{now}"))
    found.add_argument("--resume", action="store_true", help="run those without a result")
    found.add_argument(
        "--only-report", action="store_true", help="report the stored results, run nothing"
    )
    found.add_argument("extra", nargs="*", metavar="ARGS", help="options of edgezo tune")
    return found


def run_all(options: argparse.Namespace, results: ResultFile) -> None:
    """Run everything without a result."""
    bundles = Bundles(options)
    for task in chosen(options.tasks, list(TASKS), "tasks"):
        for seed in map(int, options.seeds.split(",")):
            for method in chosen(options.methods, list(FLAGS), "methods"):
                if results.is_done(method=method, task=task, seed=seed):
                    continue
                result = run_one(method, task, seed, options, bundles)
                results.add(result)
                told = f"{result['after']:.3f}" if result["status"] == DONE else result["reason"]
                print(f"{task} {method} seed {seed}: {told}", flush=True)


def main() -> int:
    """Run, report, draw."""
    options = arguments().parse_args()
    results = ResultFile(options.output / "results.jsonl", KEYS)
    if not options.only_report:
        results.refuse_used(resume=options.resume)
        tasks = chosen(options.tasks, list(TASKS), "tasks")
        needed = [find_rows(task, options.data) for task in tasks]
        if missing_data([file for rows in needed for file in (rows.train, rows.valid)]):
            return 0
        run_all(options, results)
    report(results.all())
    for task in dict.fromkeys(result["task"] for result in results.all()):
        done = by_method(results.all(), task)
        if done:
            draw(done, task, options.output / f"{task}.svg")
            print(f"picture: {options.output / task}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
