"""`edgezo bundle quantize`: the same model with smaller weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from edgezo.cli.export import reported, require_extra
from edgezo.cli.settings.options import build, options_of, setting
from edgezo.cli.terminal.output import json_option, note, print_result, table
from edgezo.cli.terminal.quiet import quiet_option
from edgezo.wording import duration
from edgezo_runtime.system.sizes import format_size


@dataclass(frozen=True, slots=True)
class QuantizeSettings:
    """Settings of `edgezo bundle quantize`."""

    quant: Literal["w4", "w8", "int8", "fp16"] = setting(
        "w4", "form of the new weights, as for edgezo export"
    )
    group_size: int = setting(32, "inputs of a group of w4 and w8: 16, 32, 64 or 128")
    calibration_rows: int = setting(
        32,
        "rows of text that the rounding errors of w4 are corrected on, at most 512; 0 rounds "
        "each weight by itself",
    )
    force: bool = setting(False, "replace an existing bundle")


@click.command(name="quantize", short_help="Make a bundle with smaller weights.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="NEW",
    help="folder of the new bundle",
)
@options_of(QuantizeSettings)
@quiet_option
@json_option
def command(bundle: Path, output: Path, as_json: bool, **values: Any) -> None:
    """Make a bundle with smaller weights from BUNDLE, whose weights are fp32 or fp16.

    The codes are those of an export of the model itself, if BUNDLE has its numbers: fp32 always,
    fp16 where float16 holds them. Trainables and tokenizer are those of BUNDLE.
    """
    require_extra()
    from edgezo_export.export import ExportConfig
    from edgezo_export.requantize import quantize_bundle
    from edgezo_export.unfinished import check_output, folder_of, restore
    from edgezo_runtime.bundle.bundle import Bundle

    settings = build(QuantizeSettings, values)
    started = time.monotonic()
    restore(bundle)  # NEW may be BUNDLE
    check_output(output, settings.force)
    opened = Bundle.open(bundle)
    note(f"quantizing {bundle} ({opened.manifest.quant}) to {output} ({settings.quant})")
    config = ExportConfig(
        quant=settings.quant,
        group_size=settings.group_size,
        calibration_rows=settings.calibration_rows,
        force=settings.force,
    )
    warnings: list[str] = []
    with reported("quantize", folder_of(output), warnings) as (tell, told):
        manifest = quantize_bundle(opened, output, config, tell, told)
    size = sum(info.bytes for info in manifest.files.values())
    seconds = time.monotonic() - started
    result = {
        "bundle": str(output),
        "model": manifest.model.id,
        "quant": manifest.quant,
        "group_size": manifest.group_size,
        "bytes": size,
        "bytes_before": opened.size_bytes,
        "warnings": warnings,
        "seconds": round(seconds, 3),
    }
    sizes = f"{format_size(size)}, {format_size(opened.size_bytes)} before"
    rows = [("bundle", str(output)), ("weights", f"{manifest.quant}, {sizes}")]
    rows.append(("time", duration(seconds)))
    print_result(result, table(rows), as_json)
