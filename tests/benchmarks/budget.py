"""Peak memory and time of a step under budgets, the small ones smaller than the model.

    python -m tests.benchmarks.budget [--budgets 150MB,200MB,256MB,512MB,1GB] [--rounds 5]
                                      [--steps 3] [--rows 16] [--tokens 64] [--warm-up 4]
                                      [--model MODEL] [--int8 BUNDLE]

SmolLM2-135M int8, 16 rows of 64 tokens by default, one antithetic pair over all blocks,
LoRA r=8 on q_proj and v_proj. Every run is a process of its own and plans for its budget; the
budgets take turns. The peak is the kernel's count for the whole process.

Targets: every peak at or below its budget and within 10 % of the prediction; 200 MB at most 1.3
times the step time of 1 GB.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgezo_runtime.system.sizes import parse_size
from tests.benchmarks import models
from tests.benchmarks.children import Child, call
from tests.benchmarks.edgezo_loop import WARM_UP, edgezo_steps
from tests.benchmarks.step import median_s
from tests.benchmarks.targets import Target, parser, print_table, print_targets

ROWS, TOKENS = 16, 64
MAX_RATIO = 1.3
MAX_ERROR_PERCENT = 10.0


def run(
    bundle: Path,
    budgets: list[str],
    rounds: int,
    steps: int,
    rows: int = ROWS,
    tokens: int = TOKENS,
    warm_up: int = WARM_UP,
) -> dict[str, list[Child]]:
    """Let the budgets take turns.

    Returns:
        The children of each budget, one per round.
    """
    found: dict[str, list[Child]] = {budget: [] for budget in budgets}
    for _ in range(rounds):
        for budget, children in found.items():
            size = parse_size(budget)
            common = {"steps": steps, "threads": None, "warm_up": warm_up}
            batch = {"rows": rows, "tokens": tokens}
            children.append(call(edgezo_steps, bundle=str(bundle), budget=size, **batch, **common))
    return found


def predicted_mb(child: Child) -> float:
    """Peak that the plan of a run predicted."""
    return float(child.result["plan"]["predicted_bytes"]) / 1e6


def report(found: dict[str, list[Child]]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    seconds = {budget: median_s(children) for budget, children in found.items()}
    last = list(found)[-1]
    print_table(
        ["budget", "peaks MB", "predicted MB", "streamed", "chunk", "s per step", "ratio"],
        [
            [
                budget,
                " ".join(f"{child.peak_mb:.0f}" for child in children),
                " ".join(f"{predicted_mb(child):.0f}" for child in children),
                children[0].result["streamed"],
                children[0].result["plan"]["chunk_tokens"],
                seconds[budget],
                seconds[budget] / seconds[last],
            ]
            for budget, children in found.items()
        ],
    )
    targets = [
        Target(
            f"highest peak in MB with {budget}",
            max(child.peak_mb for child in children),
            parse_size(budget) / 1e6,
        )
        for budget, children in found.items()
    ]
    everything = [child for children in found.values() for child in children]
    worst = max(abs(predicted_mb(child) / child.peak_mb - 1) for child in everything)
    targets.append(Target("largest error of a prediction in %", 100 * worst, MAX_ERROR_PERCENT))
    if "200MB" in found and last == "1GB":
        ratio = seconds["200MB"] / seconds[last]
        targets.append(Target(f"step time of 200MB over that of {last}", ratio, MAX_RATIO))
    return targets


def main() -> int:
    """Prepare, run, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--budgets", default="150MB,200MB,256MB,512MB,1GB")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=3, help="timed steps per run")
    arguments.add_argument("--warm-up", type=int, default=WARM_UP, help="untimed steps before them")
    arguments.add_argument("--rows", type=int, default=ROWS)
    arguments.add_argument("--tokens", type=int, default=TOKENS, help="tokens of each row")
    options = arguments.parse_args()
    with models.prepared(options, "int8", train="ab") as made:
        print(models.describe(made.int8))
        budgets, batch = options.budgets.split(","), (options.rows, options.tokens)
        found = run(
            made.int8, budgets, options.rounds, options.steps, *batch, warm_up=options.warm_up
        )
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
