"""MeZO on a task in torch float32: accuracy over time.

    python -m tests.benchmarks.mezo_torch [--task sst2] [--minutes 30] [--lr 1e-4,5e-5] [--eps 1e-2]
        [--batch-size 16] [--eval-every 60] [--seed 0] [--threads 2] [--data FOLDER]
        [--model MODEL] [--int8 BUNDLE] [--torch FOLDER]

Algorithm 1 of the paper with the setting it publishes for LoRA: rank 8, alpha 16, query and value
projections, both factors train, eps 1e-2, batch 16, a constant rate of 1e-4 or 5e-5, label words
scored as in its classification training. Several rates are several runs, each of that length.

In MeZO's favour: only the label words' logits at the last position are computed, while the
reference runs every row once per class and computes the logits of all positions; no batch is padded
beyond its longest row; evaluations are not counted.

Prints one JSON object per evaluation: lr, seconds and forwards of training so far, accuracy on the
validation rows.

References:
    Malladi et al. 2023, arXiv:2305.17333, Algorithm 1, table 16, appendix E.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.noise import derive_seed
from tests.benchmarks import models
from tests.benchmarks.curves import Point
from tests.benchmarks.mezo_loop import MezoLoop, add_lora, trained
from tests.benchmarks.targets import missing_data
from tests.benchmarks.tasks import find_rows
from tests.benchmarks.torch_options import Choice, print_point, training_parser
from tests.benchmarks.torch_training import Limits, label_word_loss, load_model, load_rows, train

EPS = 1e-2
PUBLISHED = (1e-4, 5e-5)
GRID = (*PUBLISHED, 2e-4, 4e-4)
"""The published rates, and two above them."""


def mezo(
    model: str,
    bundle: str,
    task: str,
    data: str,
    lr: float,
    seed: int,
    threads: int,
    limits: dict[str, Any],
    eps: float = EPS,
    verbose: bool = False,
) -> dict[str, Any]:
    """Train as `torch_training.train` does."""
    network = load_model(model, threads)
    torch.manual_seed(seed)
    add_lora(network, models.TARGETS, models.RANK, models.ALPHA, train="ab")
    loop = MezoLoop(trained(network), eps, lr)

    def step(number: int, batch: Batch) -> None:
        loop.step(
            derive_seed(seed, "mezo", number) >> 1, lambda: float(label_word_loss(network, batch))
        )

    def tell(point: Point) -> None:
        print_point(point, lr=lr)

    examples = load_rows(bundle, find_rows(task, Path(data)))
    return train(
        step, network, examples, seed, Limits(**limits), forwards=2, tell=tell if verbose else None
    )


def main() -> int:
    """Train with every rate."""
    arguments = training_parser(__doc__, minutes=30, lr=",".join(f"{lr:g}" for lr in PUBLISHED))
    arguments.add_argument("--eps", type=float, default=EPS)
    options = arguments.parse_args()
    rows = find_rows(options.task, options.data)
    if missing_data([rows.train, rows.valid]):
        return 0
    with models.prepared(options, "int8", "torch") as made:
        choice = Choice.of(options, made)
        for lr in map(float, options.lr.split(",")):
            found = mezo(**choice.arguments(), lr=lr, eps=options.eps, verbose=True)
            print(json.dumps({"lr": lr, "steps": found["steps"], "seconds": found["seconds"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
