"""Forms of the frozen weights: size, perplexity, zero-shot margins, and projected gradients.

    python -m tests.benchmarks.weight_forms [--model MODEL] [--forms NAME ...] [--data FOLDER]
                                            [--split test|validation] [--limit N] [--rows N]
                                            [--directions N] [--output FILE [--resume]]

Every form is scored on tinyshakespeare and on SST-2 as `tests.benchmarks.quantization` does. For
bundles, projected gradients of 16 rows of SST-2 are correlated with those of float32, as
`tests.benchmarks.correlation` does at eps 1e-2. The forms of bundles are exported as `edgezo export
--quant` does, activations coded where it codes them. The others are a float32 bundle whose linear
layers have rounded values. These show the weights alone:

q4_0          as llama.cpp's Q4_0: 32 inputs share one scale, the largest weight is exact
rounded       codes of w4, nearest ones
rotated       the same, of rotated weights
corrected     errors corrected on calibration rows, not rotated
both          errors corrected on calibration rows, of rotated weights: what w4 stores

w4, w8 and the codes of w4 have groups of 32 inputs; "w4/64" is the same with groups of 64.

Targets: w4 has at most half the increase in perplexity of q4_0, and projected gradients with a
correlation of .95. Hours on two quiet cores with all defaults; the tables of docs/figures.md say
with which options they were made. `--limit 10` is a trial.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgezo_runtime.bundle.manifest import WEIGHTS_FILE
from tests.benchmarks import correlation, models, quantization
from tests.benchmarks.result_file import DONE, ResultFile
from tests.benchmarks.rounded_layers import Layers
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)

ROUNDED = ("q4_0", "rounded", "rotated", "corrected", "both")
_GROUPED = ("w8", "w4", *ROUNDED[1:])
FORMS = (
    *("fp32", "int8", "fp16", "keep", "q4_0"),
    *(name if size == 32 else f"{name}/{size}" for name in _GROUPED for size in (32, 64, 128)),
)
EPS = 1e-2
MAX_SHARE, MIN_CORRELATION = 0.5, 0.95

Result = Mapping[str, Any]
"""model, form, status, bytes of weights, perplexity, margins, accuracy, and grads or None."""


def split_form(form: str) -> tuple[str, int]:
    """Name and group size of a form."""
    name, _, size = form.partition("/")
    return name, int(size or 32)


def export(model: str, form: str, folder: Path) -> None:
    """Write a bundle of a form."""
    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.schemes.lora import Lora

    quant, size = split_form(form)
    scheme = Lora(rank=models.RANK, alpha=models.ALPHA, targets=models.TARGETS)
    export_bundle(model, folder, ExportConfig(quant=quant, group_size=size, scheme=scheme))  # type: ignore[arg-type]


def measured(
    model: str, forms: Iterable[str], text: Path, data: Path, options: Any
) -> Iterator[dict[str, Any]]:
    """Make and score one form after the other."""
    layers: Layers | None = None
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        plain = Path(temporary, "fp32")
        for form in forms:
            folder = Path(temporary, "bundle")
            if split_form(form)[0] in ROUNDED:
                layers = layers or Layers(model)
                if not plain.is_dir():
                    export(model, "fp32", plain)
                shutil.copytree(plain, folder)
                layers.write(folder, layers.change(*split_form(form)))
            else:
                export(model, form, folder)
            yield {"model": model, "form": form} | scored(folder, form, text, data, options)
            shutil.rmtree(folder)


def scored(folder: Path, form: str, text: Path, data: Path, options: Any) -> dict[str, Any]:
    """Score a bundle, see `Result`."""
    rows = data / "sst2" / "validation.jsonl"
    found = quantization.measure(folder, text, rows, options.limit, options.rows)
    grads = None
    if options.directions and split_form(form)[0] not in ROUNDED:
        batch = correlation.load_batch(folder, data / "sst2" / "train.jsonl")
        grads = correlation.projected_grads(folder, batch, EPS, options.directions).tolist()
    print(f"{form}: perplexity {found.perplexity:.3f}", flush=True)
    return {
        "status": DONE,
        "bytes": (folder / WEIGHTS_FILE).stat().st_size,
        "perplexity": found.perplexity,
        "margins": found.margins.tolist(),
        "accuracy": found.accuracy,
        "grads": grads,
    }


def report(found: Mapping[str, Result]) -> list[Target]:
    """Print the table, in the order of `FORMS`.

    Returns:
        The targets of the product, where its forms were measured.
    """
    reference = found["fp32"]
    table: list[list[object]] = []
    for form in (name for name in FORMS if name in found):
        result = found[form]
        apart = np.subtract(result["margins"], reference["margins"])
        more = result["perplexity"] / reference["perplexity"] - 1
        megabytes = "" if split_form(form)[0] in ROUNDED else f"{result['bytes'] / 1e6:.0f}"
        agrees = agreement(result, reference)
        table.append(
            [
                form,
                megabytes,
                f"{result['perplexity']:.3f}",
                f"{more:+.2%}",
                float(np.sqrt(np.mean(np.square(apart)))),
                result["accuracy"],
                "" if agrees is None else f"{agrees:.4f}",
            ]
        )
    head = ["", "MB", "perplexity", "above fp32", "margins apart", "accuracy", "gradients"]
    print_table(head, table)
    targets: list[Target] = []
    if {"w4", "q4_0"} <= found.keys():
        more, most = (
            found[form]["perplexity"] - reference["perplexity"] for form in ("w4", "q4_0")
        )
        share = more / most if most > 0 else math.inf
        targets += [Target("increase of perplexity by w4, over that of q4_0", share, MAX_SHARE)]
    agrees = agreement(found["w4"], reference) if "w4" in found else None
    if agrees is not None:
        name = "correlation of projected gradients of w4 with float32"
        targets += [Target(name, agrees, MIN_CORRELATION, at_least=True)]
    return targets


def agreement(result: Result, reference: Result) -> float | None:
    """The correlation of projected gradients; None where they were not measured."""
    if result["grads"] is None or reference["grads"] is None:
        return None
    return correlation.correlation(np.array(result["grads"]), np.array(reference["grads"]))


def main() -> int:
    """Export, measure, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", metavar="MODEL", help="as for `edgezo export`")
    arguments.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, metavar="NAME")
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    arguments.add_argument("--split", choices=("test", "validation"), default="test")
    arguments.add_argument("--limit", type=int, help="use only the first rows of the text")
    arguments.add_argument("--rows", type=int, default=500, help="rows of SST-2")
    arguments.add_argument("--directions", type=int, default=16, help="of gradients; 0 for none")
    arguments.add_argument("--output", type=Path, metavar="FILE", help="keep results here")
    arguments.add_argument("--resume", action="store_true", help="add to its results")
    options = arguments.parse_args()
    text = options.data / "tinyshakespeare" / f"{options.split}.jsonl"
    if missing_data([text, options.data / "sst2" / "validation.jsonl"]):
        return 0
    model = models.model_name(options)
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        results = ResultFile(options.output or Path(temporary, "results"), ["model", "form"])
        results.refuse_used(resume=options.resume)
        wanted = dict.fromkeys(["fp32", *options.forms])
        left = [form for form in wanted if not results.is_done(model=model, form=form)]
        for result in measured(model, left, text, options.data, options):
            results.add(result)
        own = {one["form"]: one for one in results.all() if one["model"] == model}
    return print_targets(report(own))


if __name__ == "__main__":
    sys.exit(main())
