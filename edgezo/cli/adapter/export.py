"""`edgezo adapter export`: an adapter in the format of another program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgezo.cli.adapter.export_job import AdapterExportSettings, ExportJob
from edgezo.cli.adapter.usage_lines import usage_as_json, usage_rows
from edgezo.cli.files.output_file import new_file
from edgezo.cli.settings.options import build, options_of
from edgezo.cli.terminal.output import json_option, print_result, table
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.quiet import quiet_option
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.sizes import format_size


@click.command(name="export", short_help="Export an adapter in the format of another program.")
@click.argument("source", metavar="RUN|ADAPTER", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@options_of(AdapterExportSettings)
@quiet_option
@json_option
def command(source: Path, output: Path, as_json: bool, **values: Any) -> None:
    """Export the adapter of a run folder or an adapter file to OUT.

    If a format cannot hold the adapter, the command refuses and names the formats that can.
    """
    from edgezo.cli.settings.flags import with_flags
    from edgezo_runtime.adapters.adapter import load_adapter, scheme_settings
    from edgezo_runtime.adapters.formats import check_format

    settings = build(AdapterExportSettings, values)
    if settings.dtype != "keep" and settings.format != "merged":
        raise UsageError(
            f"--dtype {settings.dtype}: only --format merged has a data type; give it as well"
        )
    adapter = load_adapter(source)
    if settings.base_model:
        adapter = adapter.renamed(settings.base_model)
    check_format(adapter, settings.format)
    job = ExportJob(adapter, source, output, settings)
    if output.exists():
        from edgezo.cli.files.read_files import keep_files

        keep_files("OUT", output, job.read_files())
    if settings.verify:
        from edgezo.cli.adapter.proof import check_proof

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
        **usage_as_json(job),
        **more,
    }
    rows = [
        ("adapter", f"{output} ({settings.format})"),
        ("base model", adapter.info.model),
        ("modules", f"{len(adapter.modules)}, {with_flags(scheme_settings(adapter.info.scheme))}"),
    ]
    rows += usage_rows(job)
    if settings.verify:
        from edgezo.cli.adapter.every_token import every_token_rows, score_every_token
        from edgezo.cli.adapter.proof import proof_rows, prove

        with Progress() as progress:
            compared = progress.count("comparing scores in both programs")
            result["verified"] = prove(job, compared)
            scored = progress.count("scoring the adapter on every token")
            result["every_token"] = score_every_token(job, scored)
        rows += proof_rows(result["verified"])
        rows += every_token_rows(result["every_token"])
    print_result(result, table(rows), as_json)


def _write_peft(job: ExportJob) -> None:
    from edgezo_runtime.adapters.peft_writer import save_peft

    save_peft(job.adapter, job.output, job.settings.force, job.usage.invocation_text)


def _write_mlx(job: ExportJob) -> None:
    from edgezo_runtime.adapters.mlx import save_mlx

    save_mlx(job.adapter, job.output, job.settings.force)


def _write_gguf(job: ExportJob) -> None:
    from edgezo_export.adapters.gguf_adapter import save_gguf

    config = job.bundle().manifest.base_config
    new_file(job.output, job.settings.force)
    save_gguf(job.adapter, job.output, config, job.usage.invocation_text)


def _write_onnx(job: ExportJob) -> None:
    from edgezo_runtime.adapters.onnx_adapter import save_onnx_adapter

    new_file(job.output, job.settings.force)
    save_onnx_adapter(job.adapter, job.output)


def _write_safetensors(job: ExportJob) -> None:
    new_file(job.output, job.settings.force)
    job.adapter.save(job.output)


def _write_merged(job: ExportJob) -> dict[str, Any]:
    from edgezo_export.adapters.merged import save_merged

    settings = job.settings
    if not (source := job.weights()).is_dir():
        raise UsageError(f"--weights {source}: a file; merging needs a Hugging Face folder")
    with Progress() as progress:
        tell = progress.count("merging", format_size)
        found = save_merged(job.adapter, source, job.output, settings.dtype, settings.force, tell)
    return {"tensors": found.tensors, "changed": found.changed}


_WRITERS: dict[str, Callable[[ExportJob], dict[str, Any] | None]] = {
    "peft": _write_peft,
    "gguf": _write_gguf,
    "mlx": _write_mlx,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
    "merged": _write_merged,
}
