"""`edgezo runs show`: one run, in short."""

from __future__ import annotations

from pathlib import Path

import click

from edgezo.cli.terminal.output import harmless, json_option, print_result, table

_ASCII = {0x2192: "->", 0x2212: "-"}
"""Arrow and minus sign, which code pages lack."""

_WIDTH = 60
"""Most characters of a curve."""


@click.command(name="show", short_help="Show a run: its scores, its memory, its settings.")
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def command(run: Path, as_json: bool) -> None:
    """Show RUN: its scores, its memory, its settings, and the commands that go on from it.

    'edgezo report' shows more, with curves and single rows.
    """
    from edgezo.cli.terminal.code_page import can_write
    from edgezo.pictures.sparkline import BARS, PLAIN_BARS, sparkline
    from edgezo.report import facts
    from edgezo.report.as_json import report_as_json
    from edgezo.report.row_texts import RunTexts
    from edgezo.runs.run_record import read_run

    found = read_run(run)
    if as_json:
        texts = RunTexts(note="'edgezo report --format json' has the texts of rows")
        print_result(report_as_json([found], [texts])["runs"][0], [], as_json)
        return
    rows = [("run", str(run)), ("state", found.state), ("model", found.model)]
    rows.append(("method", found.method))
    for card in facts.cards(found):
        told = f"{card.value}  ({card.note})" if card.note else card.value
        rows.append((card.label, told.translate(_ASCII)))
    curve = sparkline(found.steps.loss, _WIDTH, BARS if can_write(BARS) else PLAIN_BARS)
    rows += [("loss of steps", curve)] if curve else []
    rows += facts.settings(found)
    lines = table([(name, harmless(value)) for name, value in rows])
    lines += [f"warning: {harmless(text)}" for text in facts.warnings(found)]
    lines.append("")
    lines += table([(name, harmless(line)) for name, line in facts.commands(found)])
    print_result({}, lines, as_json)
