"""`edgezo adapter`: what a run made, for other tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgezo.cli.options import build, options_of, setting
from edgezo.cli.output import json_option, print_result, table
from edgezo.cli.output_file import new_file

if TYPE_CHECKING:
    from edgezo_runtime.adapter import Adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterExportSettings:
    """What `edgezo adapter export` is asked for."""

    format: Literal["peft", "safetensors"] = setting(
        "peft", "peft: a folder that PEFT loads; safetensors: one file with edgezo's names"
    )
    base_model: str = setting(
        "", "id or path of the base model, in place of the bundle's", metavar="MODEL"
    )
    force: bool = setting(False, "replace what is there")


@click.group(name="adapter", short_help="Hand out what a run made.")
def command() -> None:
    """Hand out what a run made."""


@command.command(name="export", short_help="Write an adapter in a format of other tools.")
@click.argument("source", metavar="RUN|ADAPTER", type=click.Path(path_type=Path))
@click.argument("output", metavar="OUT", type=click.Path(path_type=Path))
@options_of(AdapterExportSettings)
@json_option
def export(source: Path, output: Path, as_json: bool, **values: Any) -> None:
    """Write the adapter of a run folder or an adapter file to OUT."""
    from edgezo_runtime.adapter import load_adapter, scheme_flags

    settings = build(AdapterExportSettings, values)
    adapter = load_adapter(source)
    if settings.base_model:
        adapter = adapter.renamed(settings.base_model)
    _WRITERS[settings.format](adapter, output, settings.force)
    result = {
        "format": settings.format,
        "output": str(output),
        "base_model": adapter.info.model,
        "trainable": adapter.info.scheme.kind,
        "rank": adapter.info.scheme.rank,
        "alpha": adapter.info.scheme.alpha,
        "modules": len(adapter.modules),
        "steps": adapter.info.steps,
    }
    lines = table(
        [
            ("adapter", f"{output} ({settings.format})"),
            ("base model", adapter.info.model),
            ("modules", f"{len(adapter.modules)}, {scheme_flags(adapter.info.scheme)}"),
        ]
    )
    print_result(result, lines, as_json)


def _write_peft(adapter: Adapter, output: Path, force: bool) -> None:
    from edgezo_runtime.peft_format import save_peft

    save_peft(adapter, output, force)


def _write_safetensors(adapter: Adapter, output: Path, force: bool) -> None:
    new_file(output, force)
    adapter.save(output)


_WRITERS: dict[str, Callable[[Adapter, Path, bool], None]] = {
    "peft": _write_peft,
    "safetensors": _write_safetensors,
}
