"""`edgezo report`: runs as a page, a picture, Markdown or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgezo.cli.files.output_file import force_option
from edgezo.cli.report.formats import FORMATS, format_of
from edgezo.cli.terminal.output import json_option, print_result
from edgezo.cli.terminal.quiet import quiet_option


@click.command(name="report", short_help="Show one run or several as a page or a picture.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="file to write",
)
@click.option(
    "--format",
    "as_format",
    type=click.Choice(FORMATS),
    help="html is one page with everything inside, svg and png are one picture, png needs the "
    "extra report; if not given, that of the file's suffix",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="bundle of the runs, if it has moved; its tokenizer makes the texts of rows",
)
@click.option(
    "--texts/--no-texts",
    default=True,
    show_default=True,
    help="show texts of rows: those with the largest losses, and samples",
)
@click.option(
    "--samples",
    type=click.IntRange(0, 3),
    default=3,
    show_default=True,
    help="texts to generate before and after, for runs without classes; needs the bundle",
)
@click.option(
    "--budget",
    default="auto",
    show_default=True,
    metavar="SIZE",
    help="memory that generating samples may take: 8GB, 750MB, 50%; auto takes 80%",
)
@force_option
@quiet_option
@json_option
def command(
    runs: tuple[Path, ...],
    output: Path,
    as_format: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a report of one RUN, or of several side by side.

    It shows losses, scores with their intervals, memory against the budget, the rows with the
    largest losses, settings, digests, and the commands that repeat the run. A page needs no network
    and can be printed. What a run did not store is left out; the page says so.
    """
    kind = format_of(output, as_format)
    from edgezo.cli.report.writing import write_report

    result = write_report(runs, output, kind, force=force, **options)
    print_result(result, [f"report  {output}"], as_json)
