"""`--verify`: does an exported adapter score alike in edgezo and in the program it is made for?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgezo.cli.adapter.training_rows import RowsGoneError, training_rows
from edgezo.cli.terminal.output import warn
from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.adapters.lora_factors import LoraFactors, as_trainables
from edgezo_runtime.adapters.peft_writer import save_peft
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import EdgezoError, MissingExtraError, UsageError
from edgezo_runtime.evaluation.parity import (
    Agreement,
    Sample,
    Scores,
    draw_sample,
    own_scores,
    sample_of,
)

if TYPE_CHECKING:
    from edgezo.cli.adapter.export_job import ExportJob
    from edgezo_runtime.bundle.bundle import Bundle

_EXACT, _ROUNDED = 0.02, 0.25
"""Largest difference between the two programs' changes of scores, as a share of the changes: where
both compute in float32, and where they round weights or states differently. A wrong scale, order of
rows or orientation makes a difference of most of their size."""

_ROUNDING = 3
"""Largest effect of rounding on a change of scores, in units of its effect on the scores."""

_ROWS = 8
"""Number of prompts of a run that are scored."""


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """Scores of another program with an exported adapter.

    Attributes:
        program: its name.
        scores: its scores.
        exact: does it compute in float32, with the weights that the bundle was made of?
        remedy: advice for an inexact program that disagrees.
    """

    program: str
    scores: Scores
    exact: bool
    remedy: str = ""


def check_proof(job: ExportJob) -> None:
    """Refuse a proof that cannot be made, before anything is written.

    Raises:
        EdgezoError: the bundle or the weights are missing, or do not fit.
        UsageError: the model scores no tokens.
    """
    task = job.adapter.info.task
    if task in ("classification", "embedding"):
        raise UsageError(
            f"--verify compares scores of tokens, and a {task} model makes none; leave it out"
        )
    job.bundle()
    if job.settings.format in ("peft", "merged"):
        job.weights()
    elif job.settings.format == "gguf":
        _llama_cpp_model(job)


def prove(job: ExportJob, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """Compare the scores of an export with edgezo's.

    Args:
        job: the export.
        tell: given how many of the two programs have scored.
    Returns:
        The program and the figures.
    Raises:
        EdgezoError: the scores disagree, or the program refuses the export.
        MissingExtraError: the program is not installed.
    """
    bundle = job.bundle()
    manifest = bundle.manifest
    sample = _sample(job, bundle)
    engine = Engine(bundle)
    initial = bundle.trainables()
    tell(0, 2)
    own = own_scores(engine, job.adapter.params(bundle), initial, sample)
    tell(1, 2)
    made = _PROOFS[job.settings.format](job, engine, sample)
    found = Agreement.of(own, made.scores)
    bound = _EXACT if made.exact and manifest.quant in ("fp32", "keep") else _ROUNDED
    if not found.relative <= bound:
        raise EdgezoError(f"{job.output}: {_disagreement(made, found, bound)}")
    return {"program": made.program, "bound": bound, **dataclasses.asdict(found)}


def _disagreement(made: Proof, found: Agreement, bound: float) -> str:
    """The reason for the missing proof: rounding hides the adapter, or the scores disagree."""
    apart = f"without the adapter the scores differ by {found.base:.2g}"
    if bound == _ROUNDED and found.relative * found.effect <= _ROUNDING * found.base:
        return (
            f"nothing is proved: {apart}, because weights are rounded, and the adapter changes "
            f"them by {found.effect:.2g}; name a float32 bundle of the model with --bundle "
            f"('edgezo export --quant fp32'), or the model in more bits with --weights"
        )
    return (
        f"{made.program} does not agree with edgezo: the adapter's changes of {found.scores} "
        f"scores differ by {found.relative:.3f} of their size, at most {bound:g} was expected. "
        f"{apart.capitalize()}: if that is much, --weights is another model, or {made.program} "
        f"reads it differently{made.remedy}"
    )


def _sample(job: ExportJob, bundle: Bundle) -> Sample:
    """The first prompts that the run was tuned on; random tokens where they are not known."""
    size = bundle.manifest.model.vocab_size
    examples = None
    try:
        examples = training_rows(job, bundle, _ROWS)
    except RowsGoneError as error:
        warn(f"{error}; --verify takes random tokens as prompts")
    if examples is None:
        return draw_sample(job.adapter, size)
    return sample_of(job.adapter, examples, size)


def proof_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures, for people."""
    return [
        ("verified", f"with {found['program']}, {found['rows']} rows, {found['scores']} scores"),
        ("difference", f"{found['difference']:.2g} rms, {found['largest']:.2g} at most"),
        (
            "effect",
            f"{found['effect']:.2g} rms, differs by {100 * found['relative']:.2g} % "
            f"(at most {100 * found['bound']:g} % expected)",
        ),
    ]


def _peft(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    """PEFT's scores; those of virtual tokens are compared with the scores of the initial ones."""
    from edgezo_export.proofs.hugging_face import peft_logits, peft_scores

    adapter, weights = job.adapter, job.weights()
    task = adapter.info.task
    if adapter.info.scheme.kind not in ("prompt", "prefix"):
        return Proof("PEFT", peft_scores(weights, job.output, task, sample), exact=True)
    began = engine.bundle.trainables()
    initial = dataclasses.replace(adapter, tensors={n: began[n] for n in adapter.tensors})
    with tempfile.TemporaryDirectory() as folder:
        save_peft(initial, Path(folder) / "initial")
        plain = peft_logits(weights, Path(folder) / "initial", task, sample)
    scores = Scores(peft_logits(weights, job.output, task, sample), plain)
    return Proof("PEFT", scores, exact=True)


def _merged(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    """Scores of transformers; exact where no weight is rounded to 16 bits."""
    from edgezo_export.proofs.hugging_face import merged_scores
    from edgezo_export.sources.safetensors_folder import SafetensorsFolder

    scores = merged_scores(job.weights(), job.output, job.adapter.info.task, sample)
    made = SafetensorsFolder(job.output)
    if not {made.stored(name).dtype for name in made.names()} & {"F16", "BF16"}:
        return Proof("transformers", scores, exact=True)
    remedy = "; the weights are rounded to 16 bits; --dtype fp32 keeps more of the adapter"
    return Proof("transformers", scores, exact=False, remedy=remedy)


def _llama_cpp_model(job: ExportJob) -> Path | None:
    """The .gguf file that is given, or that the base model is; None if there is none.

    Raises:
        UsageError: the weights that are given are no file.
    """
    if job.settings.weights is not None:
        if not (weights := job.weights()).is_file():
            raise UsageError(f"--weights {weights}: a folder; llama.cpp takes a .gguf file")
        return weights
    own = Path(job.adapter.info.model)
    return own if own.suffix == ".gguf" and own.is_file() else None


def _gguf(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    from edgezo_export.adapters.gguf_adapter import read_gguf
    from edgezo_export.proofs.llama_cpp import llama_cpp_scores

    why = "llama.cpp needs a .gguf file of the base model; name it with --weights"
    if (weights := _llama_cpp_model(job)) is not None:
        try:
            return Proof("llama.cpp", llama_cpp_scores(weights, job.output, sample), exact=False)
        except MissingExtraError as error:
            why = str(error)
    warn(f"{why}. --verify reads the result back instead")
    info = job.adapter.info
    config = engine.bundle.manifest.base_config
    factors = read_gguf(job.output, job.adapter.modules, info.architecture, config)
    return Proof("the gguf package", _again(engine, factors, sample), exact=True)


def _mlx(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    from edgezo_export.proofs.mlx import mlx_scores, require_mlx
    from edgezo_runtime.adapters.mlx import read_mlx

    why: EdgezoError
    try:
        require_mlx()
        if (weights := job.weights()).is_dir():
            return Proof("mlx-lm", mlx_scores(weights, job.output, sample), exact=True)
        why = UsageError(
            f"{weights}: a file; mlx-lm takes a Hugging Face folder, name it with --weights"
        )
        if job.settings.weights is not None:
            raise why
    except MissingExtraError as error:
        why = error
    if job.adapter.info.scheme.kind == "last-layers":
        raise why
    warn(f"{why}. --verify reads the result back instead, by the documented layout")
    return Proof("the documented layout", _again(engine, read_mlx(job.output), sample), exact=True)


def _onnx(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    from edgezo_export.proofs.onnx_model import onnx_scores

    return Proof("onnxruntime", onnx_scores(engine.bundle, job.output, sample), exact=True)


def _safetensors(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    params = load_adapter(job.output).params(engine.bundle)
    scores = own_scores(engine, params, engine.bundle.trainables(), sample)
    return Proof("edgezo", scores, exact=True)


def _again(engine: Engine, factors: list[LoraFactors], sample: Sample) -> Scores:
    """Scores of edgezo with the factors that were read back."""
    params = as_trainables(engine.bundle, factors)
    return own_scores(engine, params, engine.bundle.trainables(), sample)


_PROOFS: dict[str, Callable[[ExportJob, Engine, Sample], Proof]] = {
    "peft": _peft,
    "gguf": _gguf,
    "mlx": _mlx,
    "onnx": _onnx,
    "safetensors": _safetensors,
    "merged": _merged,
}
