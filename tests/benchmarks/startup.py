"""Time until a process can step: imports, a tiny bundle, a tuner; and of `edgezo --help`.

    python -m tests.benchmarks.startup [--rounds 7] [--int8 BUNDLE]

The bundle is a Llama of two blocks with random weights, so that the program is measured and not the
model. Every round is a fresh process; the first one warms the page cache and is left out. "ready"
is the time from the start of the process until the tuner can take its first step.

Targets: ready in .5 s and with 80 MB resident.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import models
from tests.benchmarks.children import call, environment
from tests.benchmarks.first_step import STAGES, start
from tests.benchmarks.targets import Target, parser, print_table, print_targets

MAX_READY_S, MAX_RSS_MB = 0.5, 80.0


def measure_start(bundle: Path, rounds: int) -> dict[str, tuple[float, float]]:
    """Medians over the rounds: seconds and megabytes at the end of every stage."""
    found = [
        call(start, bundle=str(bundle), started=time.time()).result["stages"]
        for _ in range(rounds + 1)
    ][1:]
    return {
        stage: (
            statistics.median(stages[stage][0] for stages in found),
            statistics.median(stages[stage][1] for stages in found),
        )
        for stage in STAGES
    }


def measure_help(rounds: int) -> float:
    """Median seconds of `edgezo --help`, the interpreter's own included."""
    seconds = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "edgezo", "--help"],
            env=environment(),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def report(stages: dict[str, tuple[float, float]], help_s: float) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    rows: list[list[object]] = [[stage, *values] for stage, values in stages.items()]
    print_table(["after", "s", "MB"], [*rows, ["edgezo --help", help_s, ""]])
    ready_s, ready_mb = stages["tuner"]
    return [
        Target("seconds until ready", ready_s, MAX_READY_S),
        Target("resident MB when ready", ready_mb, MAX_RSS_MB),
    ]


def write_tiny_model(folder: Path) -> Path:
    """A Llama of two blocks with random weights, and its tokenizer."""
    from tests.export.tiny_models import TINY, save

    return save(TINY["llama"].build(), folder)


def main() -> int:
    """Prepare, measure, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--int8", type=Path, metavar="BUNDLE", help="use this bundle")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        tiny = None if options.int8 else write_tiny_model(Path(temporary, "model"))
        source = argparse.Namespace(model=tiny, int8=options.int8, fp32=None, torch=None)
        with models.prepared(source, "int8") as made:
            stages = measure_start(made.int8, options.rounds)
        help_s = measure_help(options.rounds)
    return print_targets(report(stages, help_s))


if __name__ == "__main__":
    sys.exit(main())
