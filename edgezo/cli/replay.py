"""`edgezo replay`: the adapter of a run, from its bundle and its journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgezo.cli.files.output_file import force_option, new_file
from edgezo.cli.terminal.output import json_option, print_result, table, warn
from edgezo.cli.terminal.quiet import quiet_option
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo_runtime.bundle.bundle import Bundle


@click.command(name="replay", short_help="Rebuild an adapter from a bundle and a journal.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("journal", metavar="JOURNAL|RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="ADAPTER",
    type=click.Path(path_type=Path),
    required=True,
    help="file of the adapter",
)
@click.option(
    "--snapshot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="file for the snapshot of the run: the state of rule and sampler",
)
@click.option(
    "--adapter",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="initial adapter of the run, if it had one; by default the copy beside the journal",
)
@click.option(
    "--step",
    metavar="N",
    type=click.IntRange(min=0),
    help="number of steps after which the adapter is wanted; by default that of the adapter that "
    "the run handed out, else the last one",
)
@force_option
@quiet_option
@json_option
def command(
    bundle: Path,
    journal: Path,
    output: Path,
    snapshot: Path | None,
    adapter: Path | None,
    step: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Rebuild the adapter of a run from BUNDLE and the journal.

    A replay evaluates nothing and reads no data: the journal has the seed and the losses of every
    step, or its gradient. It leaves out an incomplete record at the end, and warns.
    """
    from edgezo._version import CREATED_BY
    from edgezo.cli.files.verify import verify
    from edgezo.cli.terminal.progress import Progress
    from edgezo.cli.terminal.stop_signals import StopSignals
    from edgezo_runtime.adapters.adapter import make_adapter
    from edgezo_runtime.adapters.saved_settings import settings_of_run
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.journal.journal import read_journal
    from edgezo_runtime.journal.run_folder import RunFolder
    from edgezo_runtime.journal.snapshot import save_snapshot
    from edgezo_runtime.training.replay import replay

    if journal.is_dir():
        journal = RunFolder(journal).journal
    opened = Bundle.open(bundle)
    _check_places(opened, journal, output, snapshot, adapter)
    for path in (output, snapshot):
        if path is not None:
            new_file(path, force)
    with StopSignals() as signals:
        verify(opened, signals)
    handed_out = None if step is not None else _handed_out_step(journal)
    total = sum(1 for _ in read_journal(journal).records)
    with Progress() as progress:
        found = replay(
            opened, journal, adapter, step=step if handed_out is None else handed_out,
            tell=lambda done: progress.part("applying steps", done, total),
        )  # fmt: skip
    if found.incomplete_bytes:
        warn(
            f"{journal}: the last {found.incomplete_bytes} bytes are an incomplete record, which "
            f"is left out"
        )
    state, kept_step = found.state, found.kept_step
    if state.hopeless:
        warn(state.hopeless)
    reading, answers = found.header.reading, found.header.answers
    if reading is None:  # the journal is an app's, or of an earlier version
        reading, answers = settings_of_run(RunFolder(journal.parent))
    made = make_adapter(
        output,
        opened,
        found.kept,
        steps=kept_step,
        created_by=CREATED_BY,
        scope=found.header.scope,
        invocation=found.header.invocation,
        reading=reading,
        answers=answers,
    )
    digest = made.save(output)
    if snapshot is not None:
        save_snapshot(snapshot, state.snapshot(found.header.digest()))
    result = {
        "adapter": str(output),
        "adapter_sha256": digest,
        "snapshot": None if snapshot is None else str(snapshot),
        "steps": state.step,
        "kept_step": kept_step,
        "torn_bytes": found.incomplete_bytes,
    }
    why = "" if handed_out is None else ", the adapter that the run handed out"
    rows = [("adapter", str(output)), ("step", f"{kept_step} of {state.step}{why}")]
    rows += [("snapshot", str(snapshot))] if snapshot else []
    print_result(result, table(rows), as_json)


def _handed_out_step(journal: Path) -> int | None:
    """The step of the adapter that the run handed out; None if it handed out none.

    It is that of the file of evaluations beside the journal, unless the journal has lost it.
    """
    from edgezo_runtime.journal.evaluation_record import read_evaluations
    from edgezo_runtime.journal.journal import read_journal
    from edgezo_runtime.journal.run_folder import RunFolder
    from edgezo_runtime.journal.run_header import RunHeader

    path = RunFolder(journal.parent).evaluations
    found = read_evaluations(path)
    if found is None or found.kept_step is None:
        return None
    contents = read_journal(journal)
    if found.run != RunHeader.read(contents.header.meta, journal).digest():
        warn(f"{path}: is of another run than {journal}; the adapter is that of the last step")
        return None
    steps = sum(1 for _ in contents.records)
    if found.kept_step > steps:
        warn(
            f"{journal}: has lost step {found.kept_step}, the adapter that the run handed out; the "
            f"adapter is that of the last step, {steps}"
        )
        return None
    return found.kept_step


def _check_places(
    bundle: Bundle, journal: Path, output: Path, snapshot: Path | None, start: Path | None
) -> None:
    """Refuse to replace a file that the command reads, even with --force.

    Raises:
        UsageError: adapter and snapshot are one file, or one of them is a file of the bundle or of
            the run, its own adapter and snapshot excepted.
    """
    from edgezo.cli.files.read_files import bundle_files, is_same, keep_files, run_files
    from edgezo_runtime.journal.run_folder import RunFolder, find_adapter

    run = RunFolder(journal.parent)
    read = [*bundle_files(bundle), journal, *run_files(run)]
    read += [] if start is None else [find_adapter(start)]
    keep_files("-o", output, [*read, run.snapshot])
    if snapshot is not None:
        keep_files("--snapshot", snapshot, [*read, run.adapter])
        if is_same(output, snapshot):
            raise UsageError(f"-o and --snapshot are both {output}; name two files")
