"""What a user gets: `edgezo tune` on SST-2 with its own defaults, several seeds.

    python -m tests.benchmarks.learning [--max-time 10m] [--seeds 0,1,2] [--bundle BUNDLE]
                                        [--data FOLDER] [--budget 1GB] [--output FOLDER] [-- ARGS]

Runs the command below for every seed, one after the other, and prints accuracy before and after,
steps and peak. What follows "--" goes to `edgezo tune` as it is. The runs stay in the output
folder; where matplotlib is installed, a picture of loss and accuracy over time is saved there.

    edgezo tune [BUNDLE] --data sst2/train.jsonl --valid sst2/validation.jsonl
        --template "{sentence} It was" --label " terrible" --label " great"
        --budget 1GB --max-time 10m --seed N --json

Expect the peak below the budget and an accuracy above .8, from .6 before (SmolLM2-135M-Instruct).
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.children import environment
from tests.benchmarks.quantization import LABELS, TEMPLATE
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)

MIN_ACCURACY = 0.8
SMOOTHED_STEPS = 50


def tune(
    train: Path,
    valid: Path,
    run: Path,
    *,
    seed: int,
    budget: str = "1GB",
    max_time: str = "10m",
    bundle: Path | None = None,
    extra: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the command in a child process.

    Args:
        train: rows to tune on.
        valid: rows to evaluate on.
        run: folder of the run.
        seed: of noise and data order.
        budget: as for the command.
        max_time: as for the command.
        bundle: None for the embedded default.
        extra: further options.
    Returns:
        What the command prints with --json.
    Raises:
        RuntimeError: the command failed.
    """
    command = [sys.executable, "-m", "edgezo", "tune"]
    command += [str(bundle)] if bundle else []
    command += ["--data", str(train), "--valid", str(valid), "--template", TEMPLATE]
    command += [part for label in LABELS for part in ("--label", label)]
    command += ["--budget", budget, "--max-time", max_time, "--seed", str(seed)]
    command += ["-o", str(run), "--json", *extra]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"edgezo tune ended with exit code {done.returncode}")
    receipt: dict[str, Any] = json.loads(done.stdout)
    return receipt


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
    entries = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    elapsed, losses = 0.0, []
    points: dict[str, list[tuple[float, float]]] = {"loss": [], "accuracy": []}
    for entry in entries:
        if entry["event"] == "step":
            elapsed += entry["elapsed_s"]
            losses.append(entry["loss"])
            points["loss"].append((elapsed, statistics.fmean(losses[-SMOOTHED_STEPS:])))
        elif entry["split"] == "valid" and entry["accuracy"] is not None:
            points["accuracy"].append((elapsed, entry["accuracy"]))
    return points


def draw(runs: dict[int, Path], picture: Path) -> None:
    """Loss and accuracy over time, a line a seed."""
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
    train, valid = (options.data / "sst2" / f"{name}.jsonl" for name in ("train", "validation"))
    if missing_data([train, valid]):
        return 0
    runs = {int(seed): options.output / f"seed{seed}" for seed in options.seeds.split(",")}
    receipts = {
        seed: tune(
            train,
            valid,
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
