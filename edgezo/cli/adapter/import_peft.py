"""`edgezo adapter import`: a LoRA of PEFT as an adapter of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edgezo.cli.files.output_file import force_option, new_file
from edgezo.cli.terminal.output import json_option, print_result, table


@click.command(name="import", short_help="Import a LoRA of PEFT as an adapter.")
@click.argument("source", metavar="FOLDER", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="ADAPTER",
    type=click.Path(path_type=Path),
    required=True,
    help="file of the adapter",
)
@click.option(
    "--base-model",
    metavar="MODEL",
    default="",
    help="id of the base model, in place of the one that the LoRA names",
)
@force_option
@json_option
def command(
    source: Path, bundle: Path, output: Path, base_model: str, force: bool, as_json: bool
) -> None:
    """Import the LoRA in PEFT's FOLDER as an adapter of BUNDLE.

    'edgezo tune --adapter' starts from the adapter, 'edgezo eval --adapter' scores with it. BUNDLE
    has to be of the same model, exported with --trainable lora, with at least the layers and the
    rank of the LoRA. The factors stay as they are; the scale goes into B.
    """
    from edgezo._version import CREATED_BY
    from edgezo.cli.files.read_files import bundle_files, keep_files
    from edgezo.cli.files.row_reading import reading_lines
    from edgezo.cli.settings.flags import with_flags
    from edgezo_runtime.adapters.adapter import scheme_settings
    from edgezo_runtime.adapters.peft_reader import read_peft, start_from_peft
    from edgezo_runtime.adapters.peft_writer import PEFT_FILES
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.data.reading import SettledReading

    opened = Bundle.open(bundle)
    keep_files("-o", output, [*bundle_files(opened), *(source / name for name in PEFT_FILES)])
    new_file(output, force)
    lora = read_peft(source)
    adapter = start_from_peft(lora, opened, output, created_by=CREATED_BY, base_model=base_model)
    digest = adapter.save(output)
    reading = adapter.info.reading
    result = {
        "adapter": str(output),
        "adapter_sha256": digest,
        "base_model": adapter.info.model,
        "modules": len(lora.factors),
        "rank": lora.rank,
        "scope": adapter.info.scope,
        "template": None if reading is None else reading.template,
        "labels": None if reading is None else list(reading.labels),
    }
    lines = table(
        [
            ("adapter", str(output)),
            ("base model", adapter.info.model),
            ("modules", f"{len(lora.factors)} of rank {lora.rank} at most"),
            *([] if reading is None else reading_lines(SettledReading(reading))),
            ("bundle", f"{bundle} ({with_flags(scheme_settings(adapter.info.scheme))})"),
        ]
    )
    print_result(result, lines, as_json)
