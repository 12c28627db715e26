"""Agreement of int8, w4 or float16 finite differences with float32, with and without the code.

    python -m tests.benchmarks.correlation [--form int8|w4|float16|float16-everywhere]
                                           [--model MODEL] [--int8 BUNDLE] [--w4 BUNDLE]
                                           [--fp32 BUNDLE] [--data FOLDER] [--directions 32]

The projected gradient (L(theta + eps z) - L(theta - eps z)) / (2 eps) of one SST-2 batch of 16 rows
along 32 directions of signs over all blocks, LoRA r=8 on q_proj and v_proj. "coded" quantizes
centre and half difference of the pair, "uncoded" each side by itself (the code is the identity).
Each is correlated with the float32 bundle at the same eps, which shows the effect of rounding,
and with the float32 bundle at the smallest eps, the reference for the derivative. About five
minutes on two cores.

float16 rounds what products with frozen weights take and make, as int8 does: weights and the rest
stay float32, sums too. float16-everywhere rounds what every node makes, the states between blocks
among them, where a code around products has nothing left to keep; its target is not judged. Both
are the fp32 bundle with casts in its graphs (`half_activations`).

Target: coded at least .95 at 1e-2 and 1e-3, at the same eps. Expect about .4 and 0 for uncoded.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch, Batches
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.methods.estimators import Probe
from tests.benchmarks import models
from tests.benchmarks.half_activations import round_activations
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)
from tests.benchmarks.tasks import TASKS
from tests.runtime.dense_directions import dense_params, trained_blocks

ALL_EPS = (1e-1, 1e-2, 1e-3)
TARGET_EPS = (1e-2, 1e-3)
MIN_CORRELATION = 0.95
ROWS = 16
STORED: tuple[Literal["int8", "w4"], ...] = ("int8", "w4")
HALF = ("float16", "float16-everywhere")

Gradients = npt.NDArray[np.float64]


def load_batch(bundle: Path, file: Path) -> Batch:
    """A batch of `ROWS` rows of an SST-2 file."""
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    tokenizer = TextTokenizer.open(opened.root, manifest.tokenizer, task=manifest.model.task)
    task = TASKS["sst2"]
    examples = load_examples(
        file,
        tokenizer,
        template=task.template,
        labels=task.labels,
        max_seq=manifest.model.max_seq,
    )
    return Batches(examples, ROWS, seed=0).batch(0)


def projected_grads(
    bundle: Path, batch: Batch, eps: float, directions: int, *, coded: bool = True
) -> Gradients:
    """Two-point estimates of the mean loss.

    Args:
        bundle: its folder.
        batch: rows with classes.
        eps: perturbation scale.
        directions: number of seeds, from 0.
        coded: use the code of the pair; else the identity.
    Returns:
        (directions,) float64.
    """
    opened = Bundle.open(bundle)
    engine = Engine(opened)
    theta = opened.trainables()
    active = trained_blocks(opened)
    code = code_matrices([eps, -eps])
    if not coded:
        code = (np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    found = np.empty(directions, np.float64)
    for seed in range(directions):
        probes = [Probe(seed, eps), Probe(seed, -eps)]
        params = dense_params(theta, active, probes, batch.row_example)
        losses = example_losses(batch, engine.score(batch, params, code)).mean(axis=1)
        found[seed] = (losses[0] - losses[1]) / (2 * eps)
    return found


def compare(
    int8: Path, fp32: Path, batch: Batch, directions: int, all_eps: Sequence[float] = ALL_EPS
) -> dict[float, dict[str, Gradients]]:
    """Projected gradients by eps, of "fp32", "coded" and "uncoded"."""
    found: dict[float, dict[str, Gradients]] = {}
    for eps in all_eps:
        found[eps] = {
            "fp32": projected_grads(fp32, batch, eps, directions),
            "coded": projected_grads(int8, batch, eps, directions),
            "uncoded": projected_grads(int8, batch, eps, directions, coded=False),
        }
        print(f"eps {eps:g} done", flush=True)
    return found


def correlation(a: Gradients, b: Gradients) -> float:
    """Pearson's."""
    return float(np.corrcoef(a, b)[0, 1])


def report(found: dict[float, dict[str, Gradients]]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    derivative = found[min(found)]["fp32"]
    same = {
        (eps, kind): correlation(grads[kind], grads["fp32"])
        for eps, grads in found.items()
        for kind in ("uncoded", "coded")
    }
    print_table(
        ["eps", "uncoded", "coded", f"against fp32 at {min(found):g}:", "uncoded", "coded", "fp32"],
        [
            [
                f"{eps:g}",
                same[eps, "uncoded"],
                same[eps, "coded"],
                "",
                *(correlation(grads[k], derivative) for k in ("uncoded", "coded", "fp32")),
            ]
            for eps, grads in found.items()
        ],
    )
    return [
        Target(f"correlation, coded, eps {eps:g}", same[eps, "coded"], MIN_CORRELATION, True)
        for eps in found
        if eps in TARGET_EPS
    ]


def main() -> int:
    """Prepare, compare, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    arguments.add_argument("--directions", type=int, default=32)
    arguments.add_argument("--form", choices=(*STORED, *HALF), default="int8")
    options = arguments.parse_args()
    rows = options.data / "sst2" / "train.jsonl"
    if missing_data([rows]):
        return 0
    needed = [options.form] if options.form in STORED else []
    with (
        models.prepared(options, *needed, "fp32") as made,
        tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary,
    ):
        if options.form in HALF:
            bundle = Path(temporary, "half")
            round_activations(made.fp32, bundle, everywhere=options.form != "float16")
        else:
            bundle = getattr(made, options.form)
        print(models.describe(bundle))
        batch = load_batch(bundle, rows)
        found = compare(bundle, made.fp32, batch, options.directions)
    targets = report(found)
    return 0 if options.form == "float16-everywhere" else print_targets(targets)


if __name__ == "__main__":
    sys.exit(main())
