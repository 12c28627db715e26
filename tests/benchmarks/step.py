"""Time and peak memory of one training step: edgezo on int8 against MeZO's loop in torch float32.

    python -m tests.benchmarks.step [--rounds 5] [--steps 5] [--model MODEL] [--int8 BUNDLE]

SmolLM2-135M, 16 rows of 32 tokens, one antithetic pair over all blocks, LoRA r=8 on q_proj and
v_proj, plain SGD, label words at the last position. Both sides train the same factors: A and B, as
MeZO does, unless the given bundle trains B alone. MeZO is run twice: with the logits of every
position, as its reference computes them, and, in its favour, with those of the last position. A
fourth side is edgezo with adapters that act on the last token only (--scope answer): another kind
of adapter, which the targets do not judge. Every measurement is a process of its own; the sides
take turns, and the table has the medians over the rounds. The peak is that of the whole process,
loading included.

Targets: at least 4 times as fast as either MeZO, 250 MB.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from tests.benchmarks import models
from tests.benchmarks.children import Child, call
from tests.benchmarks.edgezo_loop import edgezo_steps
from tests.benchmarks.targets import Target, parser, print_table, print_targets

ROWS, TOKENS = 16, 32
TITLES = {
    "edgezo": "edgezo int8",
    "answers": "edgezo int8, --scope answer",
    "all": "MeZO float32, all logits",
    "last": "MeZO float32, last logits",
}
MIN_RATIO, MAX_PEAK_MB = 4.0, 250.0


def compare(
    bundle: Path, model: Path, rounds: int, steps: int, threads: int | None = None
) -> dict[str, list[Child]]:
    """Let the sides take turns.

    Returns:
        The children of each side, one per round.
    """
    from edgezo_runtime.bundle.bundle import Bundle
    from tests.benchmarks.mezo_loop import mezo_steps

    info = Bundle.open(bundle).manifest.scheme
    scheme = {
        "targets": info.targets,
        "rank": info.rank,
        "alpha": info.alpha,
        "train": info.train,
    }
    common = {"steps": steps, "threads": threads, "rows": ROWS, "tokens": TOKENS}
    mezo = {"model": str(model), "scheme": scheme, **common}
    found: dict[str, list[Child]] = {name: [] for name in TITLES}
    for number in range(rounds):
        for side, scope in (("edgezo", "all"), ("answers", "answer")):
            found[side].append(call(edgezo_steps, bundle=str(bundle), scope=scope, **common))
        found["all"].append(call(mezo_steps, all_logits=True, **mezo))
        found["last"].append(call(mezo_steps, all_logits=False, **mezo))
        times = ", ".join(f"{median_s(part[-1:]):.3f}" for part in found.values())
        print(f"round {number + 1}: {times} s", flush=True)
    return found


def median_s(children: list[Child]) -> float:
    """Median over the rounds of the median step."""
    return float(statistics.median(statistics.median(c.result["seconds"]) for c in children))


def report(found: dict[str, list[Child]]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    seconds = {name: median_s(children) for name, children in found.items()}
    peaks = {
        name: statistics.median(child.peak_mb for child in children)
        for name, children in found.items()
    }
    print_table(
        ["", "s per step", "ratio", "peak MB", "ratio", "trained"],
        [
            [
                title,
                seconds[name],
                seconds[name] / seconds["edgezo"],
                round(peaks[name]),
                peaks[name] / peaks["edgezo"],
                f"{found[name][0].result['trained']:,}",
            ]
            for name, title in TITLES.items()
        ],
    )
    return [
        Target(
            "times as fast as MeZO, all logits", seconds["all"] / seconds["edgezo"], MIN_RATIO, True
        ),
        Target(
            "times as fast as MeZO, last logits",
            seconds["last"] / seconds["edgezo"],
            MIN_RATIO,
            True,
        ),
        Target("edgezo's peak in MB", peaks["edgezo"], MAX_PEAK_MB),
    ]


def main() -> int:
    """Prepare, compare, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=5, help="timed steps a round")
    arguments.add_argument("--threads", type=int, help="of either side (default: all cores)")
    options = arguments.parse_args()
    with models.prepared(options, "int8", "torch", train="ab") as made:
        print(models.describe(made.int8))
        found = compare(made.int8, made.torch, options.rounds, options.steps, options.threads)
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
