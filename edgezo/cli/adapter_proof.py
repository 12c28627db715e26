"""`--verify`: is an exported adapter, in the program it is for, what it is here?"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgezo.cli.output import warn
from edgezo.cli.task_data import folder_of
from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.adapters.lora_factors import LoraFactors, as_trainables
from edgezo_runtime.adapters.peft_writer import save_peft
from edgezo_runtime.data.records import resolve
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DataError, EdgezoError, MissingExtraError, UsageError
from edgezo_runtime.evaluation.parity import (
    Agreement,
    Sample,
    Scores,
    draw_sample,
    own_scores,
    sample_of,
)

if TYPE_CHECKING:
    from edgezo.cli.export_job import ExportJob
    from edgezo_runtime.bundle.bundle import Bundle

_EXACT, _ROUNDED = 0.02, 0.25
"""How far apart the changes of scores may be, as a share of them: where both compute in float32,
and where weights or states are rounded, differently on the two sides. A wrong scale, order of rows
or orientation puts them apart by most of their size."""

_DROWNED = 3
"""What rounding does to a change of scores, in units of what it does to the scores, at most."""

_ROWS, _LONGEST = 8, 128
"""Prompts of a run that are scored, and their tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """What another program makes of an export.

    Attributes:
        program: which one.
        scores: its scores.
        exact: does it compute in float32, with the weights the bundle was made from?
        remedy: what would be closer, if it is not.
    """

    program: str
    scores: Scores
    exact: bool
    remedy: str = ""


def check_proof(job: ExportJob) -> None:
    """Refuse a proof that lacks something, before anything is written.

    Raises:
        EdgezoError: the bundle or the weights are not there, or do not fit.
    """
    job.bundle()
    if job.settings.format in ("peft", "merged"):
        job.weights()
    elif job.settings.format == "gguf":
        _llama_cpp_model(job)


def prove(job: ExportJob) -> dict[str, Any]:
    """Compare the scores of an export with edgezo's.

    Returns:
        The program, and the figures.
    Raises:
        EdgezoError: they do not agree, or the program refuses the export.
        MissingExtraError: the program is not installed.
    """
    bundle = job.bundle()
    manifest = bundle.manifest
    sample = _sample(job, bundle)
    engine = Engine(bundle)
    initial = bundle.trainables()
    own = own_scores(engine, job.adapter.params(bundle), initial, sample)
    made = _PROOFS[job.settings.format](job, engine, sample)
    found = Agreement.of(own, made.scores)
    bound = _EXACT if made.exact and manifest.quant == "fp32" else _ROUNDED
    if not found.relative <= bound:
        raise EdgezoError(f"{job.output}: {_disagreement(made, found, bound)}")
    return {"program": made.program, "bound": bound, **dataclasses.asdict(found)}


def _disagreement(made: Proof, found: Agreement, bound: float) -> str:
    """Why there is no proof: rounding is as much as the adapter, or the two do not agree."""
    apart = f"without the adapter the scores are {found.base:.2g} apart"
    if bound == _ROUNDED and found.relative * found.effect <= _DROWNED * found.base:
        return (
            f"nothing is proved: {apart}, by the rounding of weights, and the adapter changes "
            f"{found.effect:.2g}; name a float32 bundle of the model with --bundle ('edgezo "
            f"export --quant fp32'), or the model in more bits with --weights"
        )
    return (
        f"{made.program} does not agree with edgezo: what the adapter changes of {found.scores} "
        f"scores differs by {found.relative:.3f} of its size, at most {bound:g} was expected. "
        f"{apart.capitalize()}: where that is much, --weights is another model, or {made.program} "
        f"reads it otherwise{made.remedy}"
    )


def _sample(job: ExportJob, bundle: Bundle) -> Sample:
    """The first prompts that a run was tuned on, else random tokens."""
    from edgezo_runtime.data.sources import load_examples, open_tokenizer

    manifest, size = bundle.manifest, bundle.manifest.model.vocab_size
    config = job.run_config()
    data, template = config.get("data"), config.get("template")
    labels = config.get("label") or []
    if not isinstance(data, str) or not isinstance(labels, list):
        return draw_sample(job.adapter, size)
    try:
        file = resolve(folder_of(data), "train")
    except DataError as error:
        warn(f"{error}; the prompts are random tokens")
        return draw_sample(job.adapter, size)
    model = manifest.model
    examples = load_examples(
        file,
        open_tokenizer(bundle),
        template=template if isinstance(template, str) else None,
        labels=tuple(map(str, labels)),
        max_seq=min(_LONGEST, model.max_seq),
        limit=_ROWS,
    )
    return sample_of(job.adapter, examples, size)


def proof_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures for people."""
    return [
        ("verified", f"with {found['program']}, {found['rows']} rows, {found['scores']} scores"),
        ("difference", f"{found['difference']:.2g} rms, {found['largest']:.2g} at most"),
        (
            "effect",
            f"{found['effect']:.2g} rms, {100 * found['relative']:.2g} % apart "
            f"(at most {100 * found['bound']:g} %)",
        ),
    ]


def _peft(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    """PEFT's scores; virtual tokens are compared with those that they began as."""
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
    """Exact where no weight was rounded to 16 bits, which may be as much as the adapter changes."""
    from edgezo_export.proofs.hugging_face import merged_scores
    from edgezo_export.sources.safetensors_folder import SafetensorsFolder

    scores = merged_scores(job.weights(), job.output, job.adapter.info.task, sample)
    made = SafetensorsFolder(job.output)
    if not {made.stored(name).dtype for name in made.names()} & {"F16", "BF16"}:
        return Proof("transformers", scores, exact=True)
    remedy = "; the weights are rounded to 16 bits, --dtype fp32 keeps more of the adapter"
    return Proof("transformers", scores, exact=False, remedy=remedy)


def _llama_cpp_model(job: ExportJob) -> Path | None:
    """The .gguf file that the base model is, or that was named; None where it is something else.

    Raises:
        UsageError: what was named is no file.
    """
    if job.settings.weights is not None:
        if not (weights := job.weights()).is_file():
            raise UsageError(f"--weights {weights}: llama.cpp takes a .gguf file")
        return weights
    own = Path(job.adapter.info.model)
    return own if own.suffix == ".gguf" and own.is_file() else None


def _gguf(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    from edgezo_export.adapters.gguf_adapter import read_gguf
    from edgezo_export.proofs.llama_cpp import llama_cpp_scores

    why = "no .gguf file of the base model was named with --weights"
    if (weights := _llama_cpp_model(job)) is not None:
        try:
            return Proof("llama.cpp", llama_cpp_scores(weights, job.output, sample), exact=False)
        except MissingExtraError as error:
            why = str(error)
    warn(f"{why}; the file is read back instead")
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
        why = UsageError(f"{weights}: mlx-lm takes a Hugging Face folder; name it with --weights")
        if job.settings.weights is not None:
            raise why
    except MissingExtraError as error:
        why = error
    if job.adapter.info.scheme.kind == "last-layers":
        raise why
    warn(f"{why}; the file is read back instead, by the documented layout")
    return Proof("its layout", _again(engine, read_mlx(job.output), sample), exact=True)


def _onnx(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    from edgezo_export.proofs.onnx_model import onnx_scores

    return Proof("onnxruntime", onnx_scores(engine.bundle, job.output, sample), exact=True)


def _safetensors(job: ExportJob, engine: Engine, sample: Sample) -> Proof:
    params = load_adapter(job.output).params(engine.bundle)
    scores = own_scores(engine, params, engine.bundle.trainables(), sample)
    return Proof("edgezo", scores, exact=True)


def _again(engine: Engine, factors: list[LoraFactors], sample: Sample) -> Scores:
    """Edgezo's scores with what was read back."""
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
