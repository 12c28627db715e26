"""`edgezo adapter export`: what a run made, in a format of other tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgezo.cli.options import build, options_of, setting
from edgezo.cli.output import json_option, print_result, table
from edgezo.cli.output_file import new_file
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo_runtime.adapter import Adapter
    from edgezo_runtime.bundle import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterExportSettings:
    """What `edgezo adapter export` is asked for."""

    format: str = setting(
        "peft",
        "peft, mlx: a folder for PEFT or mlx-lm; gguf: a file for llama.cpp; onnx: an "
        ".onnx_adapter for onnxruntime; safetensors: a file with edgezo's names; merged: the base "
        "model with the adapter folded in",
    )
    base_model: str = setting(
        "", "id or path of the base model, in place of the bundle's", metavar="MODEL"
    )
    weights: str | None = setting(
        None,
        "where the base model lies, for merged and --verify: a Hugging Face folder, or a .gguf "
        "file for the formats that are verified with one; default: the base model's path, or the "
        "cache of the hub",
        metavar="PATH",
    )
    bundle: str | None = setting(
        None, "bundle that was tuned, for gguf and --verify; a run knows its own", metavar="BUNDLE"
    )
    dtype: Literal["keep", "fp32", "fp16", "bf16"] = setting("keep", "floats of merged")
    verify: bool = setting(
        False, "load the result in the program it is for, and compare its scores with edgezo's"
    )
    force: bool = setting(False, "replace what is there")


@dataclass(frozen=True, slots=True)
class ExportJob:
    """An export that was asked for.

    Attributes:
        adapter: what is written.
        source: the run folder or the file that it comes from.
        output: where it goes.
        settings: the options.
    """

    adapter: Adapter
    source: Path
    output: Path
    settings: AdapterExportSettings

    def bundle(self) -> Bundle:
        """The bundle that was tuned.

        Raises:
            UsageError: nobody says which.
            BundleError: it cannot be opened.
            RunFileError: the adapter is of another one.
        """
        from edgezo_runtime.bundle import Bundle

        path = self.settings.bundle or self.run_config().get("bundle")
        if not isinstance(path, str):
            raise UsageError(
                f"{self.source}: an adapter file does not say where its bundle lies; name it with "
                f"--bundle"
            )
        if self.settings.bundle is None and not Path(path).exists():
            raise UsageError(
                f"{self.source}: was tuned on bundle {path}, which is not there; name where it "
                f"lies now with --bundle"
            )
        bundle = Bundle.open(path)
        self.adapter.params(bundle)
        return bundle

    def run_config(self) -> dict[str, Any]:
        """What a run folder says of its bundle and data; nothing for an adapter file.

        Raises:
            RunFileError: it cannot be read.
        """
        from edgezo_runtime.run_folder import RunFolder

        return RunFolder(self.source).settings() if self.source.is_dir() else {}

    def read_files(self) -> list[Path]:
        """What must not be written over.

        Raises:
            RunFileError: what the run says cannot be read.
        """
        from edgezo.cli.read_files import bundle_folder, model_files, run_files
        from edgezo_runtime.run_folder import RunFolder

        run = RunFolder(self.adapter.path.parent)
        found = [self.adapter.path]
        if run.has_journal():
            found += [*run_files(run), run.snapshot, run.adapter]
        bundle = self.settings.bundle or self.run_config().get("bundle")
        if isinstance(bundle, str):
            found += bundle_folder(Path(bundle))
        base = Path(self.settings.weights or self.adapter.info.model)
        return found + (model_files(base) if base.exists() else [])

    def weights(self) -> Path:
        """Folder, or .gguf file, of the base model.

        Raises:
            UsageError: nobody says which, or it is not there.
        """
        model = self.adapter.info.model
        path = Path(self.settings.weights or model)
        if path.exists():
            return path
        if self.settings.weights is None and (cached := _in_cache(model)) is not None:
            return cached
        raise UsageError(
            f"{path}: no such folder or file; name where the weights of {model} lie with --weights"
        )


@click.command(name="export", short_help="Write an adapter in a format of other tools.")
@click.argument("source", metavar="RUN|ADAPTER", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@options_of(AdapterExportSettings)
@json_option
def command(source: Path, output: Path, as_json: bool, **values: Any) -> None:
    """Write the adapter of a run folder or an adapter file to OUT.

    What a format has no place for is refused, with those that have one.
    """
    from edgezo_runtime.adapter import load_adapter, scheme_flags
    from edgezo_runtime.adapter_formats import check_format

    settings = build(AdapterExportSettings, values)
    if settings.dtype != "keep" and settings.format != "merged":
        raise UsageError(f"--dtype {settings.dtype}: it is an option of --format merged")
    adapter = load_adapter(source)
    if settings.base_model:
        adapter = adapter.renamed(settings.base_model)
    check_format(adapter, settings.format)
    job = ExportJob(adapter, source, output, settings)
    if output.exists():
        from edgezo.cli.read_files import keep_files

        keep_files("OUT", output, job.read_files())
    if settings.verify:
        from edgezo.cli.adapter_proof import check_proof

        check_proof(job)
    more = _WRITERS[settings.format](job) or {}
    result = {
        "format": settings.format,
        "output": str(output),
        "base_model": adapter.info.model,
        "trainable": adapter.info.scheme.kind,
        "rank": adapter.info.scheme.rank,
        "alpha": adapter.info.scheme.alpha,
        "modules": len(adapter.modules),
        "steps": adapter.info.steps,
        **more,
    }
    rows = [
        ("adapter", f"{output} ({settings.format})"),
        ("base model", adapter.info.model),
        ("modules", f"{len(adapter.modules)}, {scheme_flags(adapter.info.scheme)}"),
    ]
    if settings.verify:
        from edgezo.cli.adapter_proof import proof_rows, prove

        result["verified"] = prove(job)
        rows += proof_rows(result["verified"])
    print_result(result, table(rows), as_json)


def _write_peft(job: ExportJob) -> None:
    from edgezo_runtime.peft_format import save_peft

    save_peft(job.adapter, job.output, job.settings.force)


def _write_mlx(job: ExportJob) -> None:
    from edgezo_runtime.mlx_format import save_mlx

    save_mlx(job.adapter, job.output, job.settings.force)


def _write_gguf(job: ExportJob) -> None:
    from edgezo_export.gguf_adapter import save_gguf

    config = job.bundle().manifest.base_config
    new_file(job.output, job.settings.force)
    save_gguf(job.adapter, job.output, config)


def _write_onnx(job: ExportJob) -> None:
    from edgezo_runtime.onnx_adapter import save_onnx_adapter

    new_file(job.output, job.settings.force)
    save_onnx_adapter(job.adapter, job.output)


def _write_safetensors(job: ExportJob) -> None:
    new_file(job.output, job.settings.force)
    job.adapter.save(job.output)


def _write_merged(job: ExportJob) -> dict[str, Any]:
    from edgezo_export.merged import save_merged

    settings = job.settings
    if not (source := job.weights()).is_dir():
        raise UsageError(f"--weights {source}: merging needs a Hugging Face folder, not a file")
    found = save_merged(job.adapter, source, job.output, settings.dtype, settings.force)
    return {"tensors": found.tensors, "changed": found.changed}


_WRITERS: dict[str, Callable[[ExportJob], dict[str, Any] | None]] = {
    "peft": _write_peft,
    "gguf": _write_gguf,
    "mlx": _write_mlx,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
    "merged": _write_merged,
}


def _in_cache(model: str) -> Path | None:
    """The folder of a model of the Hugging Face hub that was downloaded before."""
    from importlib.util import find_spec

    from edgezo_runtime.errors import EdgezoError

    if find_spec("huggingface_hub") is None:
        return None
    from edgezo_export.hub import fetch

    try:
        return fetch(model, local_only=True)
    except EdgezoError:
        return None
