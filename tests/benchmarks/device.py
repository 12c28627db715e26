"""Steps on a GPU, beside torch in bfloat16 on the same GPU: tokens per second and memory.

    python -m tests.benchmarks.device [--device webgpu|cuda] [--shapes smollm2-135m,llama-2-7b]
                                      [--quant w4] [--rounds 3] [--steps 5] [--warm-up 2]
                                      [--rows 8] [--tokens 128] [--device-budget SIZE]
                                      [--torch cuda|cpu|none] [--tiny]

The shapes have random weights, made when the export reads them (`random_models`); the bundle of
7 billion parameters takes 4 GB of the temporary folder and some minutes. Both sides train B of a
LoRA of rank 1 beside every linear layer, on the loss of label words at the last token. Two-point
steps stand beside MeZO's loop, first-order steps beside AdamW with blocks recomputed on the way
back. Every measurement is a process of its own, the sides take turns, and the table has the medians
over the rounds. Tokens are those of a batch, each counted once however often it goes through.

Memory on the GPU is counted twice: by the side itself (edgezo's ledger, torch's allocator) and by
the driver, which NVML tells of (`pip install nvidia-ml-py`). The driver's count has what a provider
takes for itself while a graph runs, and what other programs take. Targets judge it where it is
there.

Without CUDA torch is left out, and the reason is printed. `--tiny` takes a model of two small
blocks, to see the script run: on a driver that computes on the processor, too. `--torch cpu` is for
trying the script, not for judging.

Targets: a two-point step at least 2 times as fast as MeZO's, at a third of its memory; 7 billion
parameters within 6 GB.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgezo_runtime.system.sizes import parse_size
from tests.benchmarks import random_models
from tests.benchmarks.children import Child, call
from tests.benchmarks.driver_memory import DriverMemory
from tests.benchmarks.edgezo_loop import edgezo_steps
from tests.benchmarks.eight_billion import export
from tests.benchmarks.peft_steps import peft_steps
from tests.benchmarks.targets import Target, parser, print_table, print_targets

KINDS = ("two-point", "first-order")
MIN_SPEED, MAX_MEMORY_SHARE, MAX_LARGE_GB = 2.0, 1 / 3, 6.0
LARGE = ("llama-2-7b", "mistral-7b")
"""Shapes of 7 billion parameters."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: a shape, a kind of step, and whose."""

    shape: str
    kind: str
    side: str


def edgezo_side(**arguments: Any) -> dict[str, Any]:
    """Steps of edgezo; called in a process of its own."""
    return _watched(edgezo_steps, threads=None, **arguments)


def torch_side(**arguments: Any) -> dict[str, Any]:
    """Steps of torch; called in a process of its own."""
    return _watched(peft_steps, **arguments)


def _watched(work: Callable[..., dict[str, Any]], /, **arguments: Any) -> dict[str, Any]:
    with DriverMemory() as memory:
        found = work(**arguments)
    return {**found, "driver_peak": memory.peak_bytes}


def why_no_torch(place: str) -> str | None:
    """Why torch cannot be measured; None if it can."""
    if place == "none":
        return "--torch none"
    if place == "cuda":
        import torch

        if not torch.cuda.is_available():
            return f"torch {torch.__version__} finds no CUDA device"
    return None


def measure(options: Any, bundles: dict[str, Path]) -> dict[Case, list[Child]]:
    """Let the sides take turns.

    Args:
        options: of the command line.
        bundles: by shape.
    Returns:
        The children of each case, one per round.
    """
    found: dict[Case, list[Child]] = {}
    common = {name: getattr(options, name) for name in ("rows", "tokens", "steps", "warm_up")}
    for number in range(options.rounds):
        for shape, bundle in bundles.items():
            for kind in KINDS:
                own = {**common, "first_order": kind == "first-order"}
                placed = {"device": options.device, "device_budget": options.device_budget}
                child = call(edgezo_side, bundle=str(bundle), **placed, **own)
                found.setdefault(Case(shape, kind, "edgezo"), []).append(child)
                if options.torch != "none":
                    content = random_models.SHAPES[shape]
                    child = call(torch_side, content=content, place=options.torch, **own)
                    found.setdefault(Case(shape, kind, "torch"), []).append(child)
        print(f"round {number + 1} of {options.rounds} done", flush=True)
    return found


def seconds_of(children: list[Child]) -> float:
    """Median over the rounds of the median step."""
    return statistics.median(statistics.median(child.result["seconds"]) for child in children)


def peak_of(children: list[Child], counted: str) -> float | None:
    """Median over the rounds of a peak in bytes; None where nothing counted it."""
    peaks = [child.result[counted] for child in children]
    return None if any(not peak for peak in peaks) else float(statistics.median(peaks))


def report(found: dict[Case, list[Child]], batch_tokens: int) -> list[Target]:
    """Print the table.

    Args:
        found: the children of each case.
        batch_tokens: tokens of a batch.
    Returns:
        The targets of the product.
    """
    table: list[list[object]] = []
    targets: list[Target] = []
    for case, children in found.items():
        seconds = seconds_of(children)
        own, driver = (peak_of(children, name) for name in ("device_peak", "driver_peak"))
        other = found.get(Case(case.shape, case.kind, "torch"))
        where = f"{case.shape}, {case.kind}"
        faster = "-"
        if case.side == "edgezo" and other is not None:
            faster = f"{seconds_of(other) / seconds:.3g}"
            targets += _beside_torch(case, where, children, other)
        table.append(
            [
                f"{where}, {case.side}",
                batch_tokens / seconds,
                seconds,
                _mb(own),
                _mb(driver),
                faster,
            ]
        )
        peak = driver or own
        if case.side == "edgezo" and case.shape in LARGE and peak is not None:
            targets.append(Target(f"{where}: peak on the GPU in GB", peak / 1e9, MAX_LARGE_GB))
    head = ["", "tokens per s", "s per step", "own count MB", "driver MB", "torch's time over it"]
    print_table(head, table)
    return targets


def _beside_torch(
    case: Case, where: str, children: list[Child], other: list[Child]
) -> list[Target]:
    """What two-point steps are judged by: first-order steps have no target."""
    if case.kind != "two-point":
        return []
    ratio = seconds_of(other) / seconds_of(children)
    targets = [Target(f"{where}: times as fast as MeZO", ratio, MIN_SPEED, True)]
    for counted in ("driver_peak", "device_peak"):
        own, theirs = peak_of(children, counted), peak_of(other, counted)
        if own is not None and theirs is not None:
            share = own / theirs
            targets.append(Target(f"{where}: share of MeZO's memory", share, MAX_MEMORY_SHARE))
            break
    return targets


def _mb(size: float | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"


def main() -> int:
    """Prepare, measure, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--device", choices=("webgpu", "cuda", "gpu"), default="webgpu")
    arguments.add_argument("--shapes", default="smollm2-135m,llama-2-7b")
    arguments.add_argument("--quant", choices=("w4", "w8", "fp32"), default="w4")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=5)
    arguments.add_argument("--warm-up", type=int, default=2)
    arguments.add_argument("--rows", type=int, default=8)
    arguments.add_argument("--tokens", type=int, default=128)
    arguments.add_argument("--device-budget", type=parse_size, metavar="SIZE")
    arguments.add_argument("--torch", choices=("cuda", "cpu", "none"), default="cuda")
    arguments.add_argument("--tiny", action="store_true", help="two small blocks, short rows")
    arguments.add_argument("--folder", type=Path, help="where the bundles are made for a while")
    options = arguments.parse_args()
    if options.tiny:
        options.shapes, options.rows, options.tokens = "tiny", 2, 8
        options.rounds = options.steps = options.warm_up = 1
    if (reason := why_no_torch(options.torch)) is not None:
        print(f"torch is left out: {reason}")
        options.torch = "none"
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-", dir=options.folder) as folder:
        bundles: dict[str, Path] = {}
        for shape in options.shapes.split(","):
            bundles[shape] = Path(folder, shape)
            content = random_models.SHAPES[shape]
            own = {"content": content, "quant": options.quant, "calibration_rows": 0}
            made = call(export, output=str(bundles[shape]), **own)
            print(f"{shape} in {options.quant}: {made.result['bytes'] / 1e6:.1f} MB", flush=True)
        found = measure(options, bundles)
    return print_targets(report(found, options.rows * options.tokens))


if __name__ == "__main__":
    sys.exit(main())
