"""A 7B model within 1 GB: peak memory and step time with its blocks streamed, and from a cold disk.

    python -m tests.benchmarks.streaming [--bundle BUNDLE] [--budgets 1GB,10GB] [--rounds 3]
                                         [--steps 3] [--cold-steps 2] [--rows 4] [--tokens 64]

The bundle is that of `tests.benchmarks.large_bundle` (6.7 GB, made in a temporary folder unless one
is named). One antithetic pair over all blocks per step. Every run is a process of its own; the
budgets take turns, the first is held against the last. The file is read once before each run, so
that it is in the system's cache; the peak is the kernel's count for the process, which has those
pages in it that are mapped. Then the same with the file evicted from the cache before each step.
Linux only; the machine needs memory for the file.

Targets: every peak at or below its budget and within 10 % of the prediction; 1 GB at most 1.25
times the step time of 10 GB.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE
from edgezo_runtime.system.sizes import parse_size
from tests.benchmarks import large_bundle, models
from tests.benchmarks.budget import MAX_ERROR_PERCENT, predicted_mb
from tests.benchmarks.children import Child, call
from tests.benchmarks.edgezo_loop import edgezo_steps
from tests.benchmarks.page_cache import evict, read_through
from tests.benchmarks.step import median_s
from tests.benchmarks.targets import Target, parser, print_table, print_targets

ROWS, TOKENS = 4, 64
WARM_UP = 1
MAX_RATIO = 1.25

Children = dict[str, list[Child]]


def run_warm(
    bundle: Path, budgets: list[str], rounds: int, steps: int, rows: int, tokens: int
) -> Children:
    """Let the budgets take turns, with the weights in the system's cache.

    Returns:
        The children of each budget, one per round.
    """
    found: Children = {budget: [] for budget in budgets}
    for number in range(rounds):
        for budget, children in found.items():
            read_through(bundle / WEIGHTS_FILE)
            children.append(_child(bundle, budget, steps, rows, tokens, cold=False))
        times = ", ".join(f"{median_s(children[-1:]):.2f}" for children in found.values())
        print(f"round {number + 1}: {times} s", flush=True)
    return found


def run_cold(bundle: Path, budgets: list[str], steps: int, rows: int, tokens: int) -> Children:
    """Run every budget once; each step reads the weights from the disk.

    Returns:
        The child of each budget.
    """
    return {budget: [_child(bundle, budget, steps, rows, tokens, cold=True)] for budget in budgets}


def _child(bundle: Path, budget: str, steps: int, rows: int, tokens: int, *, cold: bool) -> Child:
    return call(
        edgezo_steps,
        bundle=str(bundle),
        steps=steps,
        threads=None,
        rows=rows,
        tokens=tokens,
        budget=parse_size(budget),
        warm_up=WARM_UP,
        cold=cold,
    )


def disk_rate(bundle: Path) -> float:
    """Bytes per second of reading the weights from the disk, one after the other."""
    evict(bundle / WEIGHTS_FILE)
    return read_through(bundle / WEIGHTS_FILE)


def report_warm(found: Children) -> list[Target]:
    """Print the table of the cached file.

    Returns:
        The targets of the product.
    """
    seconds = {budget: median_s(children) for budget, children in found.items()}
    peaks = {budget: max(child.peak_mb for child in part) for budget, part in found.items()}
    first, *_, last = found
    rows: list[list[object]] = []
    for budget, children in found.items():
        peak, predicted = peaks[budget], _predicted_mb(children)
        fits = "yes" if peak <= parse_size(budget) / 1e6 else "no"
        streamed, ratio = children[0].result["streamed"], seconds[budget] / seconds[last]
        row = [budget, peak, fits, predicted, predicted / peak, streamed]
        rows.append([*row, seconds[budget], ratio, _read_gb(children)])
    head = ["budget", "highest peak MB", "fits", "predicted MB", "of peak", "blocks streamed"]
    print_table([*head, "s per step", "ratio", "GB read per step"], rows)
    for budget, children in found.items():
        for relief in children[-1].result["reliefs"]:
            print(f"{budget}: {relief}")
    targets = [
        Target(f"highest peak in MB with {budget}", peak, parse_size(budget) / 1e6)
        for budget, peak in peaks.items()
    ]
    for budget, children in found.items():
        errors = [abs(predicted_mb(child) / child.peak_mb - 1) for child in children]
        name = f"largest error of the prediction for {budget} in %"
        targets.append(Target(name, 100 * max(errors), MAX_ERROR_PERCENT))
    ratio = seconds[first] / seconds[last]
    return [*targets, Target(f"step time of {first} over that of {last}", ratio, MAX_RATIO)]


def report_cold(cold: Children, warm: Children, rate: float) -> None:
    """Print the cost of reading from the disk.

    If reading overlaps with computing, a step takes less than both one after the other.
    """
    print(f"the disk reads the weights at {rate / 1e9:.2f} GB/s")
    rows: list[list[object]] = []
    for budget, children in cold.items():
        seconds, cached, read = median_s(children), median_s(warm[budget]), _read_gb(children)
        row = [budget, children[0].peak_mb, seconds, seconds / cached, seconds - cached]
        rows.append([*row, read, read * 1e9 / rate])
    head = ["cold", "peak MB", "s per step", "of cached", "s added"]
    print_table([*head, "GB read per step", "s for the disk alone"], rows)


def _predicted_mb(children: list[Child]) -> float:
    return statistics.median(predicted_mb(child) for child in children)


def _read_gb(children: list[Child]) -> float:
    sizes = [size for child in children for size in child.result["read"]]
    return float(statistics.median(sizes)) / 1e9


@contextmanager
def prepared(bundle: Path | None) -> Iterator[Path]:
    """The bundle named, or one in a temporary folder."""
    if bundle is not None:
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        print("preparing the bundle", flush=True)
        large_bundle.build(Path(temporary, "bundle"))
        yield Path(temporary, "bundle")


def main() -> int:
    """Prepare, run, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--bundle", type=Path, metavar="BUNDLE", help="use this bundle")
    arguments.add_argument("--budgets", default="1GB,10GB")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=3, help="timed steps a run")
    arguments.add_argument("--cold-steps", type=int, default=2, help="the same; 0 for none")
    arguments.add_argument("--rows", type=int, default=ROWS)
    arguments.add_argument("--tokens", type=int, default=TOKENS, help="of each row")
    options = arguments.parse_args()
    budgets, batch = options.budgets.split(","), (options.rows, options.tokens)
    with prepared(options.bundle) as bundle:
        print(f"{models.describe(bundle)}; {options.rows} rows of {options.tokens} tokens")
        warm = run_warm(bundle, budgets, options.rounds, options.steps, *batch)
        targets = report_warm(warm)
        if options.cold_steps:
            rate = disk_rate(bundle)
            report_cold(run_cold(bundle, budgets, options.cold_steps, *batch), warm, rate)
    return print_targets(targets)


if __name__ == "__main__":
    sys.exit(main())
