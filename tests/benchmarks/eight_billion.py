"""Steps on a model of 8 billion parameters in 4 bits: time, peak and prediction, beside torch.

    python -m tests.benchmarks.eight_billion [--shape llama-3-8b] [--bundle BUNDLE] [--quant w4]
                                             [--budgets 8GB,2GB] [--tokens 64,512] [--rows 2]
                                             [--steps 1] [--warm-up 0] [--no-torch]
                                             [--kinds two-point,first-order] [--most 24GB]
                                             [--blocks N] [--calibration-rows ROWS]

The weights are random and made when the export reads them (`random_models`), so the bundle alone
lies on the disk: 4.8 GB for Llama 3 8B. Without `--bundle` it is exported first, in a process of
its own, to a temporary folder; time and peak of that are printed. Then steps of both kinds over all
blocks, for every length of rows and every budget, each in a process of its own, and the same shape
in torch (bfloat16, a LoRA of PEFT, blocks recomputed on the way back) where the memory suffices:
else the line says how much it would need. `--most` is what torch may take of the machine. Seconds
of the cores are those of all threads together, which other programs change less than the clock.

Random weights gain nothing by calibration, so it is off; `--calibration-rows 32 --blocks 2` with an
empty `--kinds=` measures what it takes: blocks are calibrated one after the other.

`--shape` takes the models that papers compare on as well: llama-2-7b, mistral-7b, opt-1.3b,
opt-13b, roberta-large, and llama-3.2-1b. The default takes about half an hour on two cores.

Targets: the bundle of Llama 3 8B at most 4.9 GB; a peak of the export of at most 2 GB; every peak
of a run below its budget and within 10 % of the prediction.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from edgezo_export.operators.layers import Quant
from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.system.memory import available_bytes
from edgezo_runtime.system.sizes import format_size, parse_size
from tests.benchmarks import random_models
from tests.benchmarks.budget import MAX_ERROR_PERCENT, predicted_mb
from tests.benchmarks.children import Child, call
from tests.benchmarks.edgezo_loop import edgezo_steps
from tests.benchmarks.page_cache import read_through
from tests.benchmarks.peft_steps import needed_bytes, peft_steps
from tests.benchmarks.step import median_s
from tests.benchmarks.targets import Target, parser, print_table, print_targets

MAX_BUNDLE_GB = 4.9
MAX_EXPORT_MB = 2000.0
KINDS = ("two-point", "first-order")


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: kind of step, tokens of a row, and the budget; None for torch."""

    kind: str
    tokens: int
    budget: str | None


def export(
    output: str, content: dict[str, Any], quant: Quant, calibration_rows: int
) -> dict[str, Any]:
    """Export a model of random weights; called in a process of its own."""
    started = time.perf_counter()
    own = {"quant": quant, "calibration_rows": calibration_rows}
    manifest = random_models.build(Path(output), content, **own)  # type: ignore[arg-type]
    size = sum(info.bytes for info in manifest.files.values())
    return {"seconds": time.perf_counter() - started, "bytes": size}


@contextmanager
def prepared(content: dict[str, Any], options: Any) -> Iterator[Path]:
    """The bundle named, or one that is exported to a temporary folder."""
    if options.bundle is not None:
        yield options.bundle
        return
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-", dir=options.folder) as temporary:
        path = Path(temporary, "bundle")
        own = {"quant": options.quant, "calibration_rows": options.calibration_rows}
        child = call(export, output=str(path), content=content, **own)
        size, seconds = child.result["bytes"] / 1e9, child.result["seconds"]
        print(f"exported {size:.2f} GB in {seconds:.0f} s, peak {child.peak_mb:.0f} MB")
        targets = [Target("peak of the export in MB", child.peak_mb, MAX_EXPORT_MB)]
        if (options.shape, options.quant, options.blocks) == ("llama-3-8b", "w4", 0):
            targets.append(Target("bundle in GB", size, MAX_BUNDLE_GB))
        if print_targets(targets):
            raise SystemExit(1)
        yield path


def run(case: Case, bundle: Path, content: dict[str, Any], options: Any) -> Child | None:
    """Measure a case; None where torch does not fit."""
    own = {"rows": options.rows, "tokens": case.tokens, "steps": options.steps}
    own |= {"warm_up": options.warm_up, "first_order": case.kind == "first-order"}
    if case.budget is None:
        return call(peft_steps, content=content, **own) if torch_fits(content, options) else None
    read_through(bundle / WEIGHTS_FILE)
    budget = parse_size(case.budget)
    return call(edgezo_steps, bundle=str(bundle), threads=None, budget=budget, **own)


def torch_fits(content: dict[str, Any], options: Any) -> bool:
    """Would a step of torch fit in the memory? Says so if not."""
    shapes = random_models.shapes_of(random_models.config_of(content))
    count = sum(_product(shape) for shape in shapes.values())
    needed, room = needed_bytes(count), min(available_bytes(), options.most)
    if needed <= room:
        return True
    print(
        f"torch: {count / 1e9:.2f} billion parameters in bfloat16 take about "
        f"{format_size(needed)}, and there are {format_size(room)}: not run"
    )
    return False


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for dim in shape:
        total *= dim
    return total


def report(found: dict[Case, Child]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    table: list[list[object]] = []
    targets: list[Target] = []
    for case, child in found.items():
        where = f"{case.kind}, {case.tokens} tokens, {case.budget or 'torch'}"
        reference = found.get(Case(case.kind, case.tokens, None))
        seconds, cores = f"{median_s([child]):.2f}", f"{_cores(child):.1f}"
        ratio = "-" if reference is None else f"{_cores(reference) / _cores(child):.2f}"
        if case.budget is None:
            table.append([where, seconds, cores, child.peak_mb, "-", "-", "-", ""])
            continue
        predicted = predicted_mb(child)
        off = 100 * (predicted / child.peak_mb - 1)
        streamed = child.result["streamed"]
        own = [seconds, cores, child.peak_mb, predicted, f"{off:+.1f}", streamed, ratio]
        table.append([where, *own])
        budget = parse_size(case.budget) / 1e6
        targets.append(Target(f"{where}: peak in MB", child.peak_mb, budget))
        targets.append(Target(f"{where}: prediction off in %", abs(off), MAX_ERROR_PERCENT))
    head = ["", "s per step", "s of cores", "peak MB", "predicted", "off %", "streamed"]
    print_table([*head, "torch's cores"], table)
    return targets


def _cores(child: Child) -> float:
    """Seconds of all cores for a step: other programs do not change them much."""
    return statistics.median(child.result["cores"])


def main() -> int:
    """Prepare, measure, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--shape", choices=list(random_models.SHAPES), default="llama-3-8b")
    arguments.add_argument("--bundle", type=Path, metavar="BUNDLE", help="use this bundle")
    arguments.add_argument("--folder", type=Path, help="where the bundle is made for a while")
    arguments.add_argument("--quant", choices=get_args(Quant), default="w4")
    arguments.add_argument("--blocks", type=int, default=0, help="of the model; 0: as it has")
    arguments.add_argument("--calibration-rows", type=int, default=0, metavar="ROWS")
    arguments.add_argument("--budgets", default="8GB,2GB")
    arguments.add_argument("--tokens", default="64,512")
    arguments.add_argument("--kinds", default=",".join(KINDS))
    arguments.add_argument("--rows", type=int, default=2)
    arguments.add_argument("--steps", type=int, default=1)
    arguments.add_argument("--warm-up", type=int, default=0)
    arguments.add_argument("--most", type=parse_size, default="1TB", help="memory for torch")
    arguments.add_argument("--no-torch", action="store_true")
    options = arguments.parse_args()
    content = dict(random_models.SHAPES[options.shape])
    if options.blocks:
        content["num_hidden_layers"] = options.blocks
    budgets: list[str | None] = [*options.budgets.split(","), None]
    if options.no_torch:
        budgets.remove(None)
    cases = [
        Case(kind, int(tokens), budget)
        for kind in filter(None, options.kinds.split(","))
        for tokens in options.tokens.split(",")
        for budget in budgets
    ]
    found: dict[Case, Child] = {}
    with prepared(content, options) as bundle:
        size = format_size(Bundle.open(bundle, verify=False).size_bytes)
        print(f"{options.shape}, {options.quant}, {size}; {options.rows} rows", flush=True)
        for case in cases:
            child = run(case, bundle, content, options)
            if child is None:
                continue
            found[case] = child
            name = f"{case.kind}, {case.tokens} tokens, {case.budget or 'torch'}"
            line = f"{median_s([child]):.2f} s, {_cores(child):.1f} s of cores, "
            line += f"peak {child.peak_mb:.0f} MB"
            if case.budget is not None:
                line += f", predicted {predicted_mb(child):.0f} MB, "
                line += f"{statistics.median(child.result['read']) / 1e9:.1f} GB read"
            for relief in child.result.get("reliefs", []):
                line += f"; {relief}"
            print(f"{name}: {line}", flush=True)
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
