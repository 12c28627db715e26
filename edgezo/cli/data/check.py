"""`edgezo data check`: what data files hold, before a run reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgezo.cli.settings.flags import with_flags
from edgezo.cli.terminal.output import harmless, json_option, print_result, table
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.quiet import quiet_option

if TYPE_CHECKING:
    from edgezo.data_check.inspection import Inspection


@click.command(name="check", short_help="Show classes, lengths, duplicates and cut rows.")
@click.argument("data", nargs=-1, required=True, metavar="FILE|DIR...")
@click.option("--valid", multiple=True, metavar="FILE|none", help="rows for validation")
@click.option("--test", multiple=True, metavar="FILE|none", help="rows for the test")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="model, for lengths in tokens and the scores of label words",
)
@click.option("--template", metavar="TEXT", help="prompt; if not given, one is proposed")
@click.option("--label", multiple=True, metavar="TEXT", help="label word of a class, in order")
@click.option("--max-seq", type=click.IntRange(1), help="longest row, in tokens")
@click.option(
    "--budget",
    default="auto",
    show_default=True,
    metavar="SIZE",
    help="memory that scoring may take: 8GB, 750MB, 50%; auto takes 80%",
)
@quiet_option
@json_option
def command(data: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show what FILE or DIR holds: classes, lengths, duplicates, and rows that would be cut.

    With --bundle, template and label words are proposed and scored: the margin is the score of the
    right class less that of the best other one, without tuning, on some of the training rows.
    """
    found = look(data, **options)
    print_result(as_result(found), lines(found), as_json)


def look(
    data: tuple[str, ...],
    *,
    valid: tuple[str, ...] = (),
    test: tuple[str, ...] = (),
    bundle: Path | None = None,
    template: str | None = None,
    label: tuple[str, ...] = (),
    max_seq: int | None = None,
    budget: str = "auto",
) -> Inspection:
    """Inspect data files, with progress.

    Raises:
        EdgezoError: a file cannot be read or has a wrong row.
    """
    from edgezo.cli.files.task_data import find_task, folder_with_task, read_task
    from edgezo.cli.settings.budget import resolve_budget
    from edgezo.data_check.inspection import inspect
    from edgezo_runtime.bundle.bundle import Bundle

    task = find_task(data, valid, test)
    folder = folder_with_task(data)
    if folder is not None and template is None and not label:
        template, label = read_task(folder)
    opened = None if bundle is None else Bundle.open(bundle, verify=False)
    limit, _ = resolve_budget(budget)
    with Progress() as progress:
        return inspect(
            dict(task.files()), opened, template=template, labels=label, max_seq=max_seq,
            budget=limit, tell=progress.part,
        )  # fmt: skip


def as_result(found: Inspection) -> dict[str, Any]:
    """The findings, for machines."""
    chosen = found.chosen
    return {
        "task": found.task,
        "rows": {name: own.rows for name, own in found.splits.items()},
        "template": None if chosen is None else chosen.template,
        "labels": [] if chosen is None else list(chosen.labels),
        "max_seq": found.max_seq,
        "proposals": [
            {
                "template": own.proposal.template,
                "labels": list(own.proposal.labels),
                "margin": own.margin,
                "accuracy": own.accuracy,
            }
            for own in found.scored
        ],
        "findings": [
            {"name": own.name, "text": own.text, "warns": own.warns} for own in found.findings
        ],
    }


def lines(found: Inspection) -> list[str]:
    """The findings, for people: what to do something about comes last."""
    facts = [own.text for own in found.findings if not own.warns]
    shown = [harmless(text) for text in facts]
    chosen = found.chosen
    if chosen is not None:
        words = ", ".join(repr(label) for label in chosen.labels)
        rows = [("template", repr(chosen.template))] + ([("labels", words)] if words else [])
        rows += [] if found.max_seq is None else [("longest row", f"{found.max_seq} tokens")]
        shown += ["", *table([(name, harmless(value)) for name, value in rows])]
    doubts = [harmless(own.text) for own in found.findings if own.warns]
    return [*shown, *([""] if doubts else []), *(f"warning: {with_flags(text)}" for text in doubts)]
