"""Steps on weights of 4 bits against steps on int8: time, and peak memory against the plan.

    python -m tests.benchmarks.form_steps [--bundles int8=BUNDLE w4=BUNDLE] [--model MODEL]
                                          [--budget 8GB] [--rows 16] [--tokens 32,512]
                                          [--rounds 3] [--steps 3] [--kinds two-point,first-order]

Every measurement is a process of its own; the bundles take turns. Two-point steps and first-order
steps over all blocks on rows of each length, at the budget that is given. Without `--bundles` the
model is exported in both forms. `tests.benchmarks.large_bundle --quant w4` makes a bundle of 8B
shape.

Targets: every peak below the budget and within 10 % of the prediction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from edgezo_runtime.system.sizes import parse_size
from tests.benchmarks import models
from tests.benchmarks.budget import MAX_ERROR_PERCENT, predicted_mb
from tests.benchmarks.children import Child, call
from tests.benchmarks.edgezo_loop import edgezo_steps
from tests.benchmarks.step import median_s
from tests.benchmarks.targets import Target, parser, print_table, print_targets

ROWS = 16
KINDS = ("two-point", "first-order")
WARM_UP = 1

Key = tuple[str, int, str]
"""Kind of step, tokens of a row, name of the bundle."""


def compare(
    bundles: dict[str, Path],
    budget: str,
    *,
    rows: int,
    tokens: Sequence[int],
    kinds: Sequence[str],
    rounds: int,
    steps: int,
) -> dict[Key, list[Child]]:
    """Let the bundles take turns.

    Returns:
        The children of each side, one per round.
    """
    found: dict[Key, list[Child]] = {}
    for number in range(rounds):
        for kind in kinds:
            for length in tokens:
                for name, bundle in bundles.items():
                    child = call(
                        edgezo_steps,
                        bundle=str(bundle),
                        steps=steps,
                        threads=None,
                        rows=rows,
                        tokens=length,
                        budget=parse_size(budget),
                        warm_up=WARM_UP,
                        first_order=kind == "first-order",
                    )
                    found.setdefault((kind, length, name), []).append(child)
                    seconds = median_s([child])
                    print(f"round {number + 1}: {kind}, {length} tokens, {name}: {seconds:.3f} s")
    return found


def report(found: dict[Key, list[Child]], budget: str) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    table: list[list[object]] = []
    targets: list[Target] = []
    for (kind, length, name), children in found.items():
        peak = max(child.peak_mb for child in children)
        predicted = predicted_mb(children[0])
        off = 100 * abs(peak - predicted) / peak
        streamed = children[0].result["streamed"]
        seconds = f"{median_s(children):.3f}"
        table.append([f"{kind}, {length} tokens", name, seconds, peak, predicted, streamed])
        where = f"{kind}, {length} tokens, {name}"
        targets.append(Target(f"{where}: peak in MB", peak, parse_size(budget) / 1e6))
        targets.append(Target(f"{where}: prediction off in %", off, MAX_ERROR_PERCENT))
    print_table(["", "weights", "s per step", "peak MB", "predicted", "blocks streamed"], table)
    return targets


def main() -> int:
    """Export unless bundles are given, measure, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--bundles", nargs="+", type=_named, metavar="NAME=BUNDLE", default=[])
    arguments.add_argument("--budget", default="8GB")
    arguments.add_argument("--rows", type=int, default=ROWS)
    arguments.add_argument("--tokens", default="32,512")
    arguments.add_argument("--kinds", default=",".join(KINDS))
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=3)
    options = arguments.parse_args()
    with ExitStack() as stack:
        bundles = dict(options.bundles)
        if not bundles:
            made = stack.enter_context(models.prepared(options, "int8", "w4"))
            bundles = {"int8": made.int8, "w4": made.w4}
        found = compare(
            bundles,
            options.budget,
            rows=options.rows,
            tokens=[int(part) for part in options.tokens.split(",")],
            kinds=options.kinds.split(","),
            rounds=options.rounds,
            steps=options.steps,
        )
    return print_targets(report(found, options.budget))


def _named(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=BUNDLE")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
