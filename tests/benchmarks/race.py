"""A race to an accuracy: `edgezo tune`, MeZO in torch, AdamW in torch, on one task.

    python -m tests.benchmarks.race [--task sst2] [--seeds 0] [--mezo-time 30] [--our-time 15]
        [--adamw-time 5] [--mezo-lr 1e-4,5e-5,2e-4,4e-4] [--budget 512MB] [--threads 2]
        [--data FOLDER] [--output FOLDER] [--resume] [--only-report] [--model MODEL]
        [--int8 BUNDLE] [--torch FOLDER] [-- ARGS]

For every seed, one after the other: edgezo with its defaults (arguments after "--" go to it
unchanged), MeZO once with every rate, AdamW. Times are in minutes. All evaluate on the same
validation rows at intervals; the time of evaluations is not counted. A curve is interpolated
between them and reaches an accuracy where it first crosses it. The peak is the kernel's, of the
whole process. edgezo's rate falls over its given time, so a shorter --our-time can reach an
accuracy sooner.

Prints one line per seed: MeZO's accuracy at the end, with the best of its rates; the minutes that
edgezo and MeZO take to it and their ratio; minutes and peak of edgezo and of AdamW to .84; the
accuracy of edgezo after 15 minutes. `mezo_torch` and `adamw_torch` describe the runs of either.

Targets: .85 in 15 minutes within 512 MB.

With the defaults it takes 2 hours and 20 minutes per seed, and evaluations. Results go to
race.jsonl of the output folder as sides end: --resume continues, --only-report runs nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import models
from tests.benchmarks.children import call
from tests.benchmarks.curves import first_reach, read_points
from tests.benchmarks.result_file import DONE, FAILED, ResultFile, points_of
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)
from tests.benchmarks.tasks import TASKS, find_rows
from tests.benchmarks.tune_child import tune

KEYS = ("side", "lr", "task", "seed")
OURS, MEZO, ADAMW = "edgezo", "mezo", "adamw"
COMPARED, WANTED = 0.84, 0.85
MAX_MINUTES, MAX_PEAK_MB = 15.0, 512.0

Side = tuple[str, float]
"""Name and learning rate; edgezo's own is told as 0."""


def sides(options: argparse.Namespace) -> list[Side]:
    """The sides of a seed, in turn."""
    mezo = [(MEZO, float(lr)) for lr in options.mezo_lr.split(",")]
    return [(OURS, 0.0), *mezo, (ADAMW, options.adamw_lr)]


def run_side(
    side: Side, seed: int, options: argparse.Namespace, made: models.Prepared
) -> dict[str, Any]:
    """Run one side; an error becomes a result."""
    name, lr = side
    run = {"side": name, "lr": lr, "task": options.task, "seed": seed}
    try:
        found = _ours(seed, options, made) if name == OURS else _torch(side, seed, options, made)
    except RuntimeError as error:
        return {**run, "status": FAILED, "reason": str(error)}
    return {**run, "status": DONE, **found}


def _ours(seed: int, options: argparse.Namespace, made: models.Prepared) -> dict[str, Any]:
    name = f"{options.task}-{seed}"
    folder: Path = options.output / "runs" / name
    if folder.exists():  # what is left of a run that was stopped
        shutil.rmtree(folder)
    rows = dataclasses.replace(find_rows(options.task, options.data), test=None)
    every = ["--eval-every", str(options.eval_every), "--threads", str(options.threads)]
    receipt = tune(
        rows,
        folder,
        seed=seed,
        budget=options.budget,
        max_time=f"{options.our_time}m",
        bundle=made.int8,
        extra=[*every, *options.extra],
        log=options.output / "logs" / f"{name}.log",
    )
    points = [dataclasses.astuple(point) for point in read_points(folder / "metrics.jsonl")]
    return {"points": points, "peak_mb": receipt["peak_bytes"] / 1e6, "steps": receipt["steps"]}


def _torch(
    side: Side, seed: int, options: argparse.Namespace, made: models.Prepared
) -> dict[str, Any]:
    from tests.benchmarks.adamw_torch import adamw
    from tests.benchmarks.mezo_torch import mezo

    name, lr = side
    minutes = options.mezo_time if name == MEZO else options.adamw_time
    child = call(
        mezo if name == MEZO else adamw,
        model=str(made.torch),
        bundle=str(made.int8),
        task=options.task,
        data=str(options.data),
        lr=lr,
        seed=seed,
        threads=options.threads,
        limits={"max_s": 60 * minutes, "eval_every_s": options.eval_every},
    )
    return {**child.result, "peak_mb": child.peak_mb}


def compare(results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Compare the runs of one seed.

    Args:
        results: of the completed runs.

    Returns:
        Minutes and megabytes, None for goals not reached. None if edgezo or MeZO is missing.
    """
    ours = [result for result in results if result["side"] == OURS]
    mezo = [result for result in results if result["side"] == MEZO]
    adamw = [result for result in results if result["side"] == ADAMW]
    if not ours or not mezo:
        return None
    best = max(mezo, key=lambda result: points_of(result)[-1].accuracy)
    end = points_of(best)[-1].accuracy
    our_s, mezo_s = _minutes(ours[0], end), _minutes(best, end)
    in_time = [p.accuracy for p in points_of(ours[0]) if p.seconds <= 60 * MAX_MINUTES * 1.02]
    return {
        "mezo_lr": best["lr"],
        "mezo_end": end,
        "our_minutes": our_s,
        "mezo_minutes": mezo_s,
        "ratio": mezo_s / our_s if our_s and mezo_s else None,
        "our_minutes_to_84": _minutes(ours[0], COMPARED),
        "our_peak": ours[0]["peak_mb"],
        "adamw_minutes_to_84": _minutes(adamw[0], COMPARED) if adamw else None,
        "adamw_peak": adamw[0]["peak_mb"] if adamw else None,
        "our_accuracy": in_time[-1],
    }


def _minutes(result: Mapping[str, Any], accuracy: float) -> float | None:
    seconds = first_reach(points_of(result), accuracy)
    return None if seconds is None else seconds / 60


def report(results: Sequence[Mapping[str, Any]]) -> list[Target]:
    """Print the tables.

    Returns:
        The targets of the product, the worst seed's.
    """
    done = [result for result in results if result["status"] == DONE]
    for result in results:
        if result["status"] != DONE:
            print(f"{result['side']}, lr {result['lr']:g}, seed {result['seed']} failed:")
            print(result["reason"])
    print_table(
        ["side", "lr", "seed", "before", "end", "best", "minutes", "steps", "peak MB"],
        [_side_row(result) for result in done],
    )
    seeds = list(dict.fromkeys(result["seed"] for result in done))
    found = {seed: compare([r for r in done if r["seed"] == seed]) for seed in seeds}
    complete = {seed: values for seed, values in found.items() if values is not None}
    if not complete:
        return []
    print()
    names = list(next(iter(complete.values())))
    rows = [
        [str(seed), *("-" if values[name] is None else values[name] for name in names)]
        for seed, values in complete.items()
    ]
    print_table(["seed", *(name.replace("_", " ") for name in names)], rows)
    accuracy = min(values["our_accuracy"] for values in complete.values())
    peak = max(values["our_peak"] for values in complete.values())
    return [
        Target(f"accuracy after {MAX_MINUTES:g} minutes", accuracy, WANTED, at_least=True),
        Target("edgezo's peak in MB", peak, MAX_PEAK_MB),
    ]


def _side_row(result: Mapping[str, Any]) -> list[object]:
    points = points_of(result)
    return [
        result["side"],
        f"{result['lr']:g}" if result["lr"] else "auto",
        str(result["seed"]),
        points[0].accuracy,
        points[-1].accuracy,
        max(point.accuracy for point in points),
        points[-1].seconds / 60,
        result["steps"],
        round(result["peak_mb"]),
    ]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    found = parser(__doc__)
    models.add_options(found)
    found.add_argument("--task", default="sst2", choices=list(TASKS))
    found.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    found.add_argument("--seeds", default="0", metavar="N,...")
    found.add_argument("--mezo-time", type=float, default=30, metavar="MINUTES")
    found.add_argument("--our-time", type=float, default=15, metavar="MINUTES")
    found.add_argument("--adamw-time", type=float, default=5, metavar="MINUTES")
    found.add_argument("--mezo-lr", default="1e-4,5e-5,2e-4,4e-4", metavar="X,...")
    found.add_argument("--adamw-lr", type=float, default=3e-4, metavar="X")
    found.add_argument("--eval-every", type=float, default=20, metavar="SECONDS")
    found.add_argument("--budget", default="512MB", metavar="SIZE")
    found.add_argument("--threads", type=int, default=2)
    now = time.strftime("%Y%m%d-%H%M%S")
    found.add_argument("--output", type=Path, default=Path("runs", f"race-{now}"))
    found.add_argument("--resume", action="store_true", help="run those without a result")
    found.add_argument(
        "--only-report", action="store_true", help="report the stored results, run nothing"
    )
    found.add_argument("extra", nargs="*", metavar="ARGS", help="options of edgezo tune")
    return found


def still_to_run(options: argparse.Namespace, results: ResultFile) -> Iterator[tuple[Side, int]]:
    """Sides and seeds without a result, in turn."""
    for seed in map(int, options.seeds.split(",")):
        for side in sides(options):
            if not results.is_done(side=side[0], lr=side[1], task=options.task, seed=seed):
                yield side, seed


def main() -> int:
    """Prepare, race, report."""
    options = arguments().parse_args()
    results = ResultFile(options.output / "race.jsonl", KEYS)
    if not options.only_report:
        results.refuse_used(resume=options.resume)
        rows = find_rows(options.task, options.data)
        if missing_data([rows.train, rows.valid]):
            return 0
        with models.prepared(options, "int8", "torch") as made:
            for side, seed in list(still_to_run(options, results)):
                results.add(run_side(side, seed, options, made))
                print(f"seed {seed}: {side[0]} is done", flush=True)
    return print_targets(report(results.all()))


if __name__ == "__main__":
    sys.exit(main())
