"""Forms of the frozen weights: size, perplexity, and margins of a zero-shot classifier.

    python -m tests.benchmarks.weight_forms [--model MODEL] [--forms NAME ...] [--data FOLDER]
                                            [--split test|validation] [--limit N]

Every form is scored on tinyshakespeare and on SST-2 as `tests.benchmarks.quantization` does. The
forms of bundles are exported as `edgezo export --quant` does, activations coded where it codes
them. The others are a float32 bundle whose linear layers have rounded values. These show the
weights alone:

q4_0          as llama.cpp's Q4_0: 32 inputs share one scale, the largest weight is exact
rounded       codes of w4, nearest ones
rotated       the same, of rotated weights
corrected     errors corrected on calibration rows, not rotated
both          errors corrected on calibration rows, of rotated weights: what w4 stores

Target: w4 has at most half the increase in perplexity of q4_0. About an hour on two quiet cores;
`--limit 10` is a trial.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.group_codes import GroupCodes, round_groups
from edgezo_export.quantization.rotation import rotate_rows
from edgezo_export.sources.architecture import model_sizes
from edgezo_runtime.bundle.manifest import WEIGHTS_FILE
from tests.benchmarks import models, quantization
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)

BUNDLES = ("fp32", "int8", "w8", "fp16", "w4")
ROUNDED = ("q4_0", "rounded", "rotated", "corrected", "both")
FORMS = (*BUNDLES, *ROUNDED)
SIZE = 32
MAX_SHARE = 0.5

Float32 = npt.NDArray[np.float32]
Change = Callable[[str, Float32], Float32]
"""Takes the name and the (N, K) matrix of a linear layer; returns other values for it."""


class Changed:
    """A checkpoint in which some matrices have other values.

    Args:
        checkpoint: the original.
        change: what becomes of a matrix.
        names: of the matrices.
    """

    def __init__(self, checkpoint: Any, change: Change, names: frozenset[str]) -> None:
        self._checkpoint = checkpoint
        self._change = change
        self._of_layers = names
        self._last: tuple[str, Float32] | None = None

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._checkpoint.names())

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._checkpoint.shape(name))

    def read(self, name: str) -> Float32:
        """A tensor, changed."""
        if name not in self._of_layers:
            return np.asarray(self._checkpoint.read(name))
        if self._last is None or self._last[0] != name:
            self._last = name, self._change(name, self._checkpoint.read(name))
        return self._last[1]

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Rows of a tensor, changed."""
        if name not in self._of_layers:
            return np.asarray(self._checkpoint.read_rows(name, start, stop))
        return self.read(name)[start:stop]


def q4_0(weights: Float32) -> Float32:
    """Round as llama.cpp does: d = largest / -8 as float16, q = floor(w / d + 8.5)."""
    groups = weights.reshape(len(weights), -1, SIZE)
    places = np.abs(groups).argmax(axis=2)[..., None]
    steps = (np.take_along_axis(groups, places, 2) / -8).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, steps, out=np.zeros_like(steps), where=steps != 0)
    codes = np.clip(np.floor(groups * inverse + np.float32(8.5)), 0, 15) - 8
    found: Float32 = (codes * steps).reshape(weights.shape).astype(np.float32)
    return found


def values_of(codes: GroupCodes) -> Float32:
    """The weights that codes mean, in the basis of the codes."""
    found: Float32 = codes.levels() * codes.scales[:, None]
    return found


def rounded(weights: Float32, *, rotate: bool) -> Float32:
    """Round each weight to the nearest code."""
    if not rotate:
        return values_of(round_groups(weights, SIZE))
    return rotate_rows(values_of(round_groups(rotate_rows(weights), SIZE)))


class Layers:
    """The linear layers of a model, and their values with corrections.

    Args:
        model: name of the model.
    """

    def __init__(self, model: str) -> None:
        from edgezo_export.bundle_graphs import build_graphs
        from edgezo_export.schemes.lora import Lora
        from edgezo_export.sources.architecture import model_class, model_sizes
        from edgezo_export.sources.model_source import open_source
        from edgezo_export.trace.trace import trace_model

        self.source = open_source(model)
        cls, task = model_class(self.source.config, "auto")
        sizes = model_sizes(self.source.config)
        causal = task == "causal-lm"
        trace = trace_model(self.source.config, cls, causal=causal, max_seq=sizes["max_seq"])
        scheme = Lora(targets=models.TARGETS)
        own = build_graphs(trace, scheme, "w4", sizes["hidden_size"], sizes["vocab_size"])
        self._graphs = own.calibration
        self.entries = [entry for entry in own.planned() if entry.kind == "linear_int4"]
        sources = (source for entry in self.entries for source in entry.sources)
        self.names = frozenset(self.source.resolve(source) for source in sources)

    def corrected(self, *, rotate: bool) -> dict[str, Float32]:
        """Values by name, errors corrected on the rows that `edgezo export` calibrates with."""
        from edgezo_export.calibration.calibrated_codes import CalibratedCodes
        from edgezo_export.export import ExportConfig, rows_to_calibrate_with

        with tempfile.TemporaryDirectory() as temporary:
            tokenizer = self.source.tokenizer
            info = self.source.save_tokenizer(Path(temporary), tokenizer)
        sizes = model_sizes(self.source.config)
        rows = rows_to_calibrate_with(
            lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"],
            info,
            ExportConfig().calibration_rows,
            sizes["max_seq"],
        )
        codes = CalibratedCodes(
            self._graphs, self.source, rows, SIZE, lambda done, total: None, rotated=rotate
        )
        made: dict[str, Float32] = {}
        for entry in self.entries:
            for name, found in zip(entry.sources, codes.codes(entry, SIZE), strict=True):
                values = values_of(found)
                made[self.source.resolve(name)] = rotate_rows(values) if rotate else values
        return made

    def change(self, form: str) -> Change:
        """What a form of `ROUNDED` makes of a layer."""
        if form == "q4_0":
            return lambda name, weights: q4_0(weights)
        if form in ("rounded", "rotated"):
            return lambda name, weights: rounded(weights, rotate=form == "rotated")
        made = self.corrected(rotate=form == "both")
        return lambda name, weights: made[name]


def export(layers: Layers, form: str, folder: Path) -> None:
    """Write a bundle of a form."""
    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.schemes.lora import Lora

    source, quant = layers.source, form
    if form in ROUNDED:
        checkpoint = Changed(source._checkpoint, layers.change(form), layers.names)
        source, quant = dataclasses.replace(source, _checkpoint=checkpoint), "fp32"
    config = ExportConfig(quant=quant, scheme=Lora(rank=1, targets=models.TARGETS))  # type: ignore[arg-type]
    export_bundle(source, folder, config)


def measured(
    model: str, forms: Iterable[str], text: Path, rows: Path, limit: int | None
) -> Iterator[tuple[str, int, quantization.Quality]]:
    """Export and score one form after the other; yields name, bytes of weights and scores."""
    layers = Layers(model)
    for form in forms:
        with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
            folder = Path(temporary, "bundle")
            export(layers, form, folder)
            size = (folder / WEIGHTS_FILE).stat().st_size
            found = quantization.measure(folder, text, rows, limit)
        print(f"{form}: perplexity {found.perplexity:.3f}", flush=True)
        yield form, size, found


def report(found: dict[str, tuple[int, quantization.Quality]]) -> list[Target]:
    """Print the table.

    Returns:
        The target of the product, where its forms were measured.
    """
    reference = found["fp32"][1]
    table: list[list[object]] = []
    for form, (size, quality) in found.items():
        apart = float(np.sqrt(np.mean(np.square(quality.margins - reference.margins))))
        more = quality.perplexity / reference.perplexity - 1
        megabytes = f"{size / 1e6:.0f}" if form in BUNDLES else ""
        perplexity = f"{quality.perplexity:.3f}"
        table.append([form, megabytes, perplexity, f"{more:+.2%}", apart, quality.accuracy])
    print_table(["", "MB", "perplexity", "above fp32", "margins apart", "accuracy"], table)
    if not {"w4", "q4_0"} <= found.keys():
        return []
    more = [found[form][1].perplexity - reference.perplexity for form in ("w4", "q4_0")]
    share = more[0] / more[1] if more[1] > 0 else math.inf
    return [Target("increase of perplexity by w4, over that of q4_0", share, MAX_SHARE)]


def main() -> int:
    """Export, measure, report."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", metavar="MODEL", help="as for `edgezo export`")
    arguments.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, metavar="NAME")
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    arguments.add_argument("--split", choices=("test", "validation"), default="test")
    arguments.add_argument("--limit", type=int, help="use only the first rows, for a trial")
    options = arguments.parse_args()
    text = options.data / "tinyshakespeare" / f"{options.split}.jsonl"
    rows = options.data / "sst2" / "validation.jsonl"
    if missing_data([text, rows]):
        return 0
    forms = dict.fromkeys(["fp32", *options.forms])
    model = models.model_name(options)
    found = {
        form: (size, quality)
        for form, size, quality in measured(model, forms, text, rows, options.limit)
    }
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
