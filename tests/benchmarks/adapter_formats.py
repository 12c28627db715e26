"""Label scores of an adapter in the programs it is exported for, against edgezo's own.

    python -m tests.benchmarks.adapter_formats [--model MODEL] [--int8 BUNDLE] [--fp32 BUNDLE]
                                               [--torch FOLDER] [--adapter RUN|ADAPTER]
                                               [--data FOLDER] [--rows N] [--steps N]

Tunes the default LoRA (rank 1, all linear layers) on SST-2 with the int8 bundle, writes it in every
format, and scores rows of the validation set: the logits of " terrible" and " great" behind
"{sentence} It was". The reference is edgezo on a float32 bundle of the same weights. `difference`
is that of the scores. `apart` is the difference of their changes by the adapter, as a share of the
change.

llama.cpp takes part if llama-cpp-python is installed, and mlx-lm if it is; otherwise their files
are read back by their documented layouts. The LoRA file is also folded into the GGUF model, which
transformers reads by its own rules. About ten minutes on two cores.

Target: at most 1 % apart if everything is float32.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgezo_export.adapters.gguf_adapter import read_gguf, save_gguf
from edgezo_export.adapters.merged import Dtype, save_merged
from edgezo_export.proofs.hugging_face import peft_logits, torch_logits
from edgezo_export.proofs.llama_cpp import llama_cpp_scores
from edgezo_export.proofs.mlx import mlx_scores
from edgezo_export.proofs.onnx_model import onnx_scores
from edgezo_runtime.adapters.adapter import Adapter, load_adapter
from edgezo_runtime.adapters.lora_factors import LoraFactors, as_trainables
from edgezo_runtime.adapters.mlx import read_mlx, save_mlx
from edgezo_runtime.adapters.onnx_adapter import save_onnx_adapter
from edgezo_runtime.adapters.peft_writer import save_peft
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import MissingExtraError
from edgezo_runtime.evaluation.parity import Agreement, Sample, Scores, own_scores
from tests.benchmarks import models
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)
from tests.benchmarks.tasks import TASKS
from tests.export.gguf_model import float_gguf, folded

MOST_APART = 0.01


@dataclass(frozen=True, slots=True)
class Row:
    """A format in a program.

    Attributes:
        format: value of `--format`.
        program: the one that scored.
        exact: is all of it float32?
        found: its scores against edgezo's.
    """

    format: str
    program: str
    exact: bool
    found: Agreement


class Comparison:
    """An adapter in every format.

    Args:
        adapter: the one to write.
        bundle: float32, of the kind that was tuned.
        weights: the same weights as a Hugging Face folder.
        model: the same weights as a .gguf file, or None.
        sample: rows to score.
        folder: for the written files.
    """

    def __init__(
        self,
        adapter: Adapter,
        bundle: Bundle,
        weights: Path,
        model: Path | None,
        sample: Sample,
        folder: Path,
    ) -> None:
        self._adapter = adapter
        self._bundle = bundle
        self._weights = weights
        self._model = model
        self._sample = sample
        self._folder = folder
        self._engine = Engine(bundle)
        self._plain = torch_logits(weights, "causal-lm", sample)
        self._own = own_scores(self._engine, adapter.params(bundle), bundle.trainables(), sample)

    def rows(self) -> list[Row]:
        """The table."""
        return [
            *self._merged("keep"),
            *self._merged("fp16"),
            *self._merged("bf16"),
            *self._peft(),
            *self._gguf(),
            *self._mlx(),
            *self._onnx(),
        ]

    def of_bundle(self, bundle: Bundle) -> Row:
        """Another bundle of the same model in edgezo."""
        params = self._adapter.params(bundle)
        scores = own_scores(Engine(bundle), params, bundle.trainables(), self._sample)
        return self._row("safetensors", f"edgezo {bundle.manifest.quant}", scores, exact=False)

    def _row(self, name: str, program: str, scores: Scores, *, exact: bool = True) -> Row:
        return Row(name, program, exact, Agreement.of(self._own, scores))

    def _peft(self) -> list[Row]:
        path = self._folder / "peft"
        save_peft(self._adapter, path)
        tuned = peft_logits(self._weights, path, "causal-lm", self._sample)
        return [self._row("peft", "PEFT", Scores(tuned, self._plain))]

    def _merged(self, dtype: Dtype) -> list[Row]:
        path = self._folder / dtype
        save_merged(self._adapter, self._weights, path, dtype)
        scores = self._in_torch(path)
        said = "fp32" if dtype == "keep" else dtype
        return [self._row(f"merged {said}", "transformers", scores, exact=dtype == "keep")]

    def _gguf(self) -> list[Row]:
        path, info = self._folder / "a.gguf", self._adapter.info
        config = self._bundle.manifest.base_config
        save_gguf(self._adapter, path, config)
        factors = read_gguf(path, self._adapter.modules, info.architecture, config)
        rows = [self._row("gguf", "read back", self._again(factors))]
        if self._model is None:
            return rows
        base = float_gguf(self._model, self._folder / "base.gguf")
        merged = float_gguf(self._model, self._folder / "folded.gguf", folded(path))
        rows.append(self._row("gguf", "folded, transformers", self._in_torch(merged)))
        for file, said in ((base, "float32"), (self._model, "as it is")):
            rows += self._if_there(
                "gguf",
                f"llama.cpp, {said}",
                lambda file=file: llama_cpp_scores(file, path, self._sample),
                exact=False,
            )
        return rows

    def _mlx(self) -> list[Row]:
        path = self._folder / "mlx"
        save_mlx(self._adapter, path)
        rows = [self._row("mlx", "read back", self._again(read_mlx(path)))]
        return rows + self._if_there(
            "mlx", "mlx-lm", lambda: mlx_scores(self._weights, path, self._sample)
        )

    def _onnx(self) -> list[Row]:
        path = self._folder / "a.onnx_adapter"
        save_onnx_adapter(self._adapter, path)
        return [self._row("onnx", "onnxruntime", onnx_scores(self._bundle, path, self._sample))]

    def _in_torch(self, model: Path) -> Scores:
        return Scores(torch_logits(model, "causal-lm", self._sample), self._plain)

    def _again(self, factors: list[LoraFactors]) -> Scores:
        params = as_trainables(self._bundle, factors)
        return own_scores(self._engine, params, self._bundle.trainables(), self._sample)

    def _if_there(
        self, name: str, program: str, score: Callable[[], Scores], *, exact: bool = True
    ) -> list[Row]:
        try:
            return [self._row(name, program, score(), exact=exact)]
        except MissingExtraError as error:
            print(f"{name}: {error}")
            return []


def report(rows: list[Row]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    print_table(
        ["format", "program", "difference", "at most", "effect", "apart", "same class"],
        [
            [
                row.format,
                row.program,
                row.found.difference,
                row.found.largest,
                row.found.effect,
                row.found.relative,
                row.found.same,
            ]
            for row in rows
        ],
    )
    worst = max(row.found.relative for row in rows if row.exact)
    return [Target("apart in float32, as a share of the effect", worst, MOST_APART)]


def sst2_sample(bundle: Bundle, file: Path, count: int) -> Sample:
    """Prompts of the first rows of a file."""
    manifest = bundle.manifest
    examples = load_examples(
        file,
        TextTokenizer.open(bundle.root, manifest.tokenizer, task=manifest.model.task),
        template=TASKS["sst2"].template,
        labels=TASKS["sst2"].labels,
        max_seq=manifest.model.max_seq,
        limit=count,
    )
    labels = tuple(tokens[0] for tokens in examples.label_tokens)
    return Sample(tuple(example.tokens for example in examples), labels, "all")


def tuned_adapter(bundle: Path, rows: Path, steps: int, run: Path) -> Adapter:
    """Tune the bundle with `edgezo tune`."""
    from edgezo.cli import main

    command = ["tune", bundle, "--budget", "8GB", "--data", rows, "--steps", steps]
    command += ["--valid", "none", "--scope", "all", "-o", run, *TASKS["sst2"].options()]
    main([str(part) for part in command], standalone_mode=False)
    return load_adapter(run)


def main() -> int:
    """Prepare, tune, compare, report."""
    from edgezo_export.export import ExportConfig, export_bundle

    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--adapter", type=Path, help="use this adapter of the int8 bundle")
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    arguments.add_argument("--rows", type=int, default=100)
    arguments.add_argument("--steps", type=int, default=50)
    options = arguments.parse_args()
    train, valid = (options.data / "sst2" / f"{name}.jsonl" for name in ("train", "validation"))
    if missing_data([train, valid]):
        return 0
    model = models.model_name(options)
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        folder = Path(temporary)
        places = {"int8": options.int8, "fp32": options.fp32}
        for quant, place in places.items():
            if place is None:
                places[quant] = folder / quant
                export_bundle(model, folder / quant, ExportConfig(quant=quant))  # type: ignore[arg-type]
        weights = options.torch or folder / "torch"
        if options.torch is None:
            models.write_float32(model, weights)
        int8, fp32 = (Bundle.open(place) for place in places.values())
        if options.adapter is None:
            adapter = tuned_adapter(int8.root, train, options.steps, folder / "run")
        else:
            adapter = load_adapter(options.adapter)
        sample = sst2_sample(fp32, valid, options.rows)
        file = Path(model) if model.endswith(".gguf") else None
        (folder / "out").mkdir()
        comparison = Comparison(adapter, fp32, weights, file, sample, folder / "out")
        rows = [comparison.of_bundle(int8), *comparison.rows()]
        steps = f"{adapter.info.steps} steps"
        print(f"{fp32.manifest.model.id}, {len(sample.rows)} rows of SST-2, {steps}")
        return print_targets(report(rows))


if __name__ == "__main__":
    sys.exit(main())
