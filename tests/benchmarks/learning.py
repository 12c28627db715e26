"""`edgezo tune` on SST-2 with its own defaults, several seeds.

    python -m tests.benchmarks.learning [--max-time 10m] [--seeds 0,1,2] [--bundle BUNDLE]
                                        [--data FOLDER] [--budget 1GB] [--output FOLDER] [-- ARGS]

Runs the command below for every seed, one after the other, and prints accuracy before and after,
steps and peak. Arguments after "--" go to `edgezo tune` unchanged. The runs stay in the output
folder; if matplotlib is installed, a picture of loss and accuracy over time is saved there.

    edgezo tune [BUNDLE] --data sst2/train.jsonl --valid sst2/validation.jsonl
        --template "{sentence} It was" --label " terrible" --label " great"
        --budget 1GB --max-time 10m --seed N --json

Expect the peak below the budget and an accuracy above .8, from .6 before (SmolLM2-135M-Instruct).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.curves import read_metrics, read_points
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)
from tests.benchmarks.tasks import find_rows
from tests.benchmarks.tune_child import tune

MIN_ACCURACY = 0.8
SMOOTHED_STEPS = 50


def report(receipts: dict[int, dict[str, Any]]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    print_table(
        ["seed", "before", "after", "loss before", "loss after", "steps", "s", "peak MB"],
        [
            [
                str(seed),
                receipt["accuracy_before"],
                receipt["accuracy_after"],
                receipt["loss_before"],
                receipt["loss_after"],
                receipt["steps"],
                receipt["seconds"],
                round(receipt["peak_bytes"] / 1e6),
            ]
            for seed, receipt in receipts.items()
        ],
    )
    after = statistics.median(receipt["accuracy_after"] for receipt in receipts.values())
    most = max(receipt["peak_bytes"] / receipt["budget_bytes"] for receipt in receipts.values())
    return [
        Target("median accuracy after", after, MIN_ACCURACY, at_least=True),
        Target("largest peak over the budget", most, 1.0),
    ]


def curves(metrics: Path) -> dict[str, list[tuple[float, float]]]:
    """Points (seconds, value) of a run: "loss", smoothed, and "accuracy"."""
    elapsed, losses = 0.0, []
    accuracy = [(point.seconds, point.accuracy) for point in read_points(metrics)]
    points: dict[str, list[tuple[float, float]]] = {"loss": [], "accuracy": accuracy}
    for entry in read_metrics(metrics):
        if entry["event"] == "step":
            elapsed += entry["elapsed_s"]
            losses.append(entry["loss"])
            points["loss"].append((elapsed, statistics.fmean(losses[-SMOOTHED_STEPS:])))
    return points


def draw(runs: dict[int, Path], picture: Path) -> None:
    """Loss and accuracy over time, one line per seed."""
    import matplotlib.figure  # type: ignore[import-not-found, unused-ignore]

    figure = matplotlib.figure.Figure(figsize=(8, 6))
    axes = figure.subplots(2, 1, sharex=True)
    for seed, run in runs.items():
        for axis, (name, points) in zip(axes, curves(run / "metrics.jsonl").items(), strict=True):
            axis.plot(*zip(*points, strict=True), label=f"seed {seed}")
            axis.set_ylabel(name)
    axes[0].legend()
    axes[1].set_xlabel("seconds of tuning")
    figure.savefig(picture)


def main() -> int:
    """Tune, report, draw."""
    arguments = parser(__doc__)
    arguments.add_argument("--bundle", type=Path)
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    arguments.add_argument("--seeds", default="0,1,2", metavar="N,N,...")
    arguments.add_argument("--budget", default="1GB", metavar="SIZE")
    arguments.add_argument("--max-time", default="10m")
    now = time.strftime("%Y%m%d-%H%M%S")
    arguments.add_argument("--output", type=Path, default=Path("runs", f"learning-{now}"))
    arguments.add_argument("extra", nargs="*", metavar="ARGS", help="options of edgezo tune")
    options = arguments.parse_args()
    rows = dataclasses.replace(find_rows("sst2", options.data), test=None)
    if missing_data([rows.train, rows.valid]):
        return 0
    runs = {int(seed): options.output / f"seed{seed}" for seed in options.seeds.split(",")}
    receipts = {
        seed: tune(
            rows,
            run,
            seed=seed,
            budget=options.budget,
            max_time=options.max_time,
            bundle=options.bundle,
            extra=options.extra,
        )
        for seed, run in runs.items()
    }
    targets = report(receipts)
    if importlib.util.find_spec("matplotlib") is not None:
        draw(runs, options.output / "learning.svg")
        print(f"picture: {options.output / 'learning.svg'}")
    return print_targets(targets)


if __name__ == "__main__":
    sys.exit(main())
