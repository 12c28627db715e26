"""Reads runs and writes their report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgezo.cli.files.output_file import new_file
from edgezo.cli.files.read_files import keep_files, run_files
from edgezo.cli.report.formats import Format
from edgezo.cli.settings.budget import resolve_budget
from edgezo.cli.terminal.output import note, warn
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.report.as_json import report_as_json
from edgezo.report.markdown import markdown
from edgezo.report.page import html_page
from edgezo.report.png import png
from edgezo.report.poster import poster
from edgezo.report.row_texts import RunTexts, read_texts
from edgezo.runs.run_record import RunRecord, read_run
from edgezo_runtime.errors import EdgezoError, InterruptedRunError, RunFileError
from edgezo_runtime.system.files import atomic_write


def write_report(
    paths: Sequence[Path],
    output: Path,
    kind: Format,
    *,
    force: bool,
    bundle: Path | None,
    texts: bool,
    samples: int,
    budget: str,
) -> dict[str, Any]:
    """Write a report and return the result of the verb.

    Args:
        paths: folders of runs.
        output: file to write.
        kind: its format.
        force: may it replace a file?
        bundle: of the runs; None takes the place that each run knows.
        texts: show texts of rows.
        samples: texts to generate of each run.
        budget: memory that generating may take.
    Raises:
        EdgezoError: a run cannot be read, or the file cannot be written.
    """
    runs = [read_run(path) for path in paths]
    new_file(output, force)
    for run in runs:
        keep_files("-o", output, [*run_files(run.folder), run.folder.adapter, run.folder.snapshot])
    found = [RunTexts(note="texts are left out: --no-texts")] * len(runs)
    if texts and kind not in ("svg", "png"):
        found = [_texts(run, bundle, samples, budget) for run in runs]
    content = _content(kind, runs, found)
    try:
        atomic_write(output, content)
    except OSError as error:
        raise RunFileError(f"{output}: cannot be written: {error.strerror}") from error
    return {
        "report": str(output),
        "format": kind,
        "runs": [str(run.folder.path) for run in runs],
        "bytes": len(content),
    }


def _content(kind: Format, runs: Sequence[RunRecord], texts: Sequence[RunTexts]) -> bytes:
    match kind:
        case "html":
            return html_page(runs, texts).encode()
        case "svg":
            return poster(runs).encode()
        case "png":
            return png(poster(runs))
        case "md":
            return markdown(runs, texts).encode()
        case "json":
            report = report_as_json(runs, texts)
            return (json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _texts(run: RunRecord, bundle: Path | None, count: int, budget: str) -> RunTexts:
    """Texts of a run; samples are left out, with a warning, where they cannot be generated."""
    found = read_texts(run, bundle)
    if found.note or not count:
        return found
    from edgezo.report.samples import sample_rows, with_samples

    if not sample_rows(run, count):
        return found
    size, less = resolve_budget(budget)
    if less:
        warn(less)
    note(f"{run.name}: generating texts before and after tuning")
    try:
        with StopSignals() as signals, Progress() as progress:
            return with_samples(
                found, run, bundle=bundle, budget=size, count=count, check=signals.check,
                tell=progress.count("generating tokens"),
            )  # fmt: skip
    except InterruptedRunError:
        raise
    except EdgezoError as error:
        warn(f"{run.name}: no texts before and after: {error}")
        return found
