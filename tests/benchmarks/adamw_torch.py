"""Back-propagation with AdamW on a task in torch float32: accuracy over time, and the memory.

    python -m tests.benchmarks.adamw_torch [--task sst2] [--minutes 5] [--lr 3e-4] [--batch-size 16]
        [--eval-every 10] [--seed 0] [--threads 2] [--data FOLDER] [--model MODEL] [--int8 BUNDLE]
        [--torch FOLDER]

LoRA by peft, rank 8, alpha 16, query and value projections, a constant rate, no dropout, no weight
decay. Rows, scores and evaluations are those of `mezo_torch`: only the label words' logits at the
last position are computed.

Prints one JSON object per evaluation, as `mezo_torch` does. At the end it prints the peak of the
process's resident memory as counted by the kernel, and its value before the first step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.system.memory import peak_rss_bytes
from tests.benchmarks import models
from tests.benchmarks.curves import Point
from tests.benchmarks.mezo_loop import trained
from tests.benchmarks.targets import missing_data
from tests.benchmarks.tasks import find_rows
from tests.benchmarks.torch_options import Choice, print_point, training_parser
from tests.benchmarks.torch_training import Limits, label_word_loss, load_model, load_rows, train

LR = 3e-4


def adamw(
    model: str,
    bundle: str,
    task: str,
    data: str,
    lr: float,
    seed: int,
    threads: int,
    limits: dict[str, Any],
    verbose: bool = False,
) -> dict[str, Any]:
    """Train as `torch_training.train` does; "loaded_mb" is the peak before the first step."""
    import peft

    network = load_model(model, threads)
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=models.RANK,
        lora_alpha=int(models.ALPHA),
        target_modules=list(models.TARGETS),
        task_type="CAUSAL_LM",
    )
    peft.get_peft_model(network, config)  # puts the adapters into the network itself
    optimizer = torch.optim.AdamW(trained(network), lr=lr, weight_decay=0.0)
    examples = load_rows(bundle, find_rows(task, Path(data)))
    loaded = peak_rss_bytes()

    def step(number: int, batch: Batch) -> None:
        loss: Any = label_word_loss(network, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def tell(point: Point) -> None:
        print_point(point, lr=lr)

    found = train(
        step, network, examples, seed, Limits(**limits), forwards=3, tell=tell if verbose else None
    )
    return {**found, "loaded_mb": loaded / 1e6, "peak_mb": peak_rss_bytes() / 1e6}


def main() -> int:
    """Train with every rate."""
    options = training_parser(__doc__, minutes=5, lr=f"{LR:g}", eval_every=10).parse_args()
    rows = find_rows(options.task, options.data)
    if missing_data([rows.train, rows.valid]):
        return 0
    with models.prepared(options, "int8", "torch") as made:
        choice = Choice.of(options, made)
        for lr in map(float, options.lr.split(",")):
            found = adamw(**choice.arguments(), lr=lr, verbose=True)
            print(json.dumps({"lr": lr, **{key: found[key] for key in found if key != "points"}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
