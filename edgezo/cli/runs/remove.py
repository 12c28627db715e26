"""`edgezo runs rm`: removes runs."""

from __future__ import annotations

from pathlib import Path

import click

from edgezo.cli.terminal.output import json_option, note, print_result
from edgezo_runtime.errors import UsageError


@click.command(name="rm", short_help="Remove runs: their files, and their folders if empty.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--yes", is_flag=True, help="do not ask")
@json_option
def command(runs: tuple[Path, ...], yes: bool, as_json: bool) -> None:
    """Remove runs: journal, adapter, metrics and the other files of each RUN.

    Files that are not the run's stay, and so does their folder. A run in which a process is tuning
    is not removed, nor is a link to a run.
    """
    from edgezo.runs.removal import check_removable, remove_run

    for path in runs:  # nothing is removed if one of them is no run
        check_removable(path)
    if not yes:
        names = ", ".join(map(str, runs))
        try:
            agreed = click.confirm(f"remove {names}?", err=True)
        except click.Abort:  # nobody answers
            agreed = False
        if not agreed:
            raise UsageError("nothing was removed; pass --yes to remove without a question")
    kept: dict[str, list[str]] = {}
    for path in runs:
        left = remove_run(path)
        if left:
            kept[str(path)] = [str(file) for file in left]
            others = "1 other file is" if len(left) == 1 else f"{len(left)} other files are"
            note(f"{path}: {others} kept")
    result = {"removed": [str(path) for path in runs], "kept": kept}
    print_result(result, [f"removed  {path}" for path in runs], as_json)
