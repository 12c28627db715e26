"""A run as its folder shows it: settings, steps, evaluations, events, results and state."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any

from edgezo.runs.evaluated_rows import EvaluatedRows, read_rows
from edgezo.runs.metrics_lines import metrics_lines
from edgezo.runs.receipt_check import check_receipt
from edgezo.runs.run_state import State, run_state
from edgezo_runtime.bundle.bundle import MANIFEST_FILE
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.journal_header import read_journal_header
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader
from edgezo_runtime.system.files import open_regular, read_regular
from edgezo_runtime.system.sizes import parse_size
from edgezo_runtime.system.typed_json import LONGEST_TEXT, JsonShapeError, parse_object

_COLUMNS = (
    "step", "loss", "projected_grad", "lr", "rows", "tokens", "elapsed_s", "memory_bytes",
    "peak_bytes",
)  # fmt: skip


_MOST = 2**53
"""Steps and rows beyond which a line is damaged."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a run, a column for each number; NaN stands for what is not known.

    Attributes:
        step: numbers of the steps, from 1.
        loss: mean over the probes of a step, nats.
        projected_grad: root mean square of the projected gradients.
        lr: learning rate.
        rows: rows that the model evaluated.
        tokens: tokens that the model evaluated.
        elapsed_s: seconds of each step.
        memory_bytes: resident memory of the process after the step.
        peak_bytes: its peak so far in the session.
    """

    step: Sequence[float] = ()
    loss: Sequence[float] = ()
    projected_grad: Sequence[float] = ()
    lr: Sequence[float] = ()
    rows: Sequence[float] = ()
    tokens: Sequence[float] = ()
    elapsed_s: Sequence[float] = ()
    memory_bytes: Sequence[float] = ()
    peak_bytes: Sequence[float] = ()

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.step)


@dataclass(frozen=True, slots=True)
class EvaluationLine:
    """An evaluation, as metrics.jsonl has it.

    Attributes:
        split: "valid" or "test".
        when: "before", "during" or "after".
        step: steps that had been taken.
        rows: number of rows; 0 if it is not known.
        loss: mean over the rows, nats.
        accuracy: share of rows with the right class; None without classes.
        score: mean score of generated answers; None without any.
    """

    split: str
    when: str
    step: int
    rows: int
    loss: float
    accuracy: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened after a step: a rollback, or a measure against short memory."""

    step: int
    kind: str
    text: str


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
        folder: its files.
        settings: content of config.json; empty for a run that an app began.
        receipt: content of receipt.json; empty before the first session has ended.
        steps: its steps.
        evaluations: its evaluations, by step.
        events: what happened, by step.
        rows: results of single rows.
        header: inputs of the run; None if the journal lacks a header.
        state: how the run stands.
        written: when metrics were last written, seconds since 1970; 0 without metrics.
    """

    folder: RunFolder
    settings: Mapping[str, Any] = field(default_factory=dict)
    receipt: Mapping[str, Any] = field(default_factory=dict)
    steps: Steps = field(default_factory=Steps)
    evaluations: tuple[EvaluationLine, ...] = ()
    events: tuple[RunEvent, ...] = ()
    rows: EvaluatedRows = field(default_factory=EvaluatedRows)
    header: RunHeader | None = None
    state: State = "unfinished"
    written: float = 0.0

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.path.resolve().name

    @cached_property
    def model(self) -> str:
        """Id of the model, else the name of its bundle; "?" if neither is known."""
        found = self.receipt.get("model") or _model_of(self.settings.get("bundle"))
        return str(found or Path(str(self.settings.get("bundle") or "?")).name)

    @property
    def method(self) -> str:
        """Name of the method."""
        if self.header is not None:
            return self.header.config.method
        return str(self.receipt.get("method") or self.settings.get("method") or "?")

    @property
    def data(self) -> str:
        """Names of the files or folders of the rows; "?" for the rows of an app."""
        found = self.settings.get("data")
        paths = found if isinstance(found, list) else [] if found is None else [found]
        return ", ".join(_data_name(str(path)) for path in paths) or "?"

    @property
    def labels(self) -> tuple[str, ...]:
        """Label words of the classes; empty without classes."""
        if self.header is not None and self.header.reading is not None:
            return self.header.reading.labels
        found = self.settings.get("label")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @cached_property
    def valid(self) -> tuple[EvaluationLine, ...]:
        """Evaluations on the rows for validation, one per step."""
        by_step = {own.step: own for own in self.evaluations if own.split == "valid"}
        return tuple(by_step[step] for step in sorted(by_step))

    @property
    def before(self) -> EvaluationLine | None:
        """Evaluation of the initial adapter on the rows for validation."""
        return next((own for own in self.valid if own.step == 0), None)

    @property
    def after(self) -> EvaluationLine | None:
        """Evaluation of the adapter that the run hands out, on the rows for validation."""
        return next((own for own in self.valid if own.step == self.kept_step and own.step), None)

    @property
    def test(self) -> EvaluationLine | None:
        """The last evaluation on the rows for the test."""
        return next((own for own in reversed(self.evaluations) if own.split == "test"), None)

    @property
    def kept_step(self) -> int | None:
        """Step of the adapter that the run hands out; of an unfinished run, the best so far."""
        kept = self.receipt.get("kept_step")
        if isinstance(kept, int) and self.state not in ("running", "unfinished"):
            return kept
        later = [own for own in self.valid if own.step]
        best = min(later, key=lambda own: (-(own.score or 0.0), own.loss), default=None)
        return None if best is None else best.step

    @property
    def seconds(self) -> float:
        """Seconds that the steps took, as far as metrics have them."""
        return math.fsum(value for value in self.steps.elapsed_s if math.isfinite(value))

    @property
    def peak_bytes(self) -> int | None:
        """Peak of the process's resident memory; None if it is not known."""
        found = [value for value in self.steps.peak_bytes if math.isfinite(value)]
        told = self.receipt.get("peak_bytes")
        found += [told] if isinstance(told, int) else []
        return int(max(found)) if found else None

    @property
    def budget_bytes(self) -> int | None:
        """The budget; before the first session has ended that of the settings.

        None if it is not known: what a share of the free memory was is in the receipt only.
        """
        found = self.receipt.get("budget_bytes")
        if isinstance(found, int):
            return found
        given = self.settings.get("budget")
        if not isinstance(given, str) or given.endswith("%") or given.lower() == "auto":
            return None
        try:
            return parse_size(given)
        except UsageError:
            return None


def is_run(path: Path) -> bool:
    """Does a folder hold a run, or what is left of one?"""
    folder = RunFolder(path)
    return folder.has_journal() or folder.receipt.is_file() or folder.metrics.is_file()


def read_run(path: Path) -> RunRecord:
    """Read the folder of a run. Nothing is written, and a run may go on meanwhile.

    Args:
        path: the folder.
    Raises:
        RunFileError: it holds no run, or a file of the run is damaged.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise RunFileError(f"{path}: no such run folder; 'edgezo runs' lists those of a folder")
    if not is_run(path):
        raise RunFileError(f"{path}: holds no run; 'edgezo runs {path}' lists the runs below it")
    steps, evaluations, events = _read_metrics(folder.metrics)
    receipt = _read_object(folder.receipt)
    check_receipt(receipt, folder.receipt)
    last = int(steps.step[-1]) if len(steps) else 0
    return RunRecord(
        folder=folder,
        settings=folder.settings(),
        receipt=receipt,
        steps=steps,
        evaluations=tuple(sorted(evaluations, key=lambda own: own.step)),
        events=tuple(events),
        rows=read_rows(folder.rows),
        header=_read_header(folder.journal),
        state=run_state(folder, receipt, last),
        written=folder.metrics.stat().st_mtime if folder.metrics.is_file() else 0.0,
    )


def _read_object(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        return parse_object(read_regular(path, LONGEST_TEXT).decode("utf-8"))
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, JsonShapeError) as error:
        raise RunFileError(f"{path}: not JSON: {error}; remove it") from error


def _read_header(path: Path) -> RunHeader | None:
    if not path.is_file():
        return None
    try:
        with BufferedReader(open_regular(path)) as file:
            return RunHeader.read(read_journal_header(file, path).meta, path)
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error


def _read_metrics(path: Path) -> tuple[Steps, list[EvaluationLine], list[RunEvent]]:
    """Steps, evaluations and events; lines from the first damaged one on are left out."""
    columns = {name: array("d") for name in _COLUMNS}
    evaluations: list[EvaluationLine] = []
    events: list[RunEvent] = []
    if not path.is_file():
        return Steps(), evaluations, events
    try:
        with BufferedReader(open_regular(path)) as file:
            for _, entry in metrics_lines(file):
                kind, step = entry["event"], entry["step"]
                if not 0 <= step < _MOST:
                    break
                if kind == "step":
                    for name in _COLUMNS:
                        columns[name].append(_number(entry.get(name)))
                    columns["step"][-1] = step + 1
                elif kind == "eval":
                    found = _evaluation(entry)
                    evaluations += [] if found is None else [found]
                elif kind in ("divergence", "pressure"):
                    text = entry.get("text") or entry.get("relief")
                    events.append(RunEvent(step, kind, str(text)))
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error
    return Steps(**columns), evaluations, events


def _evaluation(entry: Mapping[str, Any]) -> EvaluationLine | None:
    """An evaluation; None if it lacks its loss or its set."""
    loss, split, when = _number(entry.get("loss")), entry.get("split"), entry.get("when")
    if not math.isfinite(loss) or not isinstance(split, str) or not isinstance(when, str):
        return None
    accuracy, score, rows = (_number(entry.get(name)) for name in ("accuracy", "score", "rows"))
    return EvaluationLine(
        split,
        when,
        entry["step"],
        int(rows) if 0 <= rows < _MOST else 0,
        loss,
        accuracy if 0 <= accuracy <= 1 else None,
        score if math.isfinite(score) else None,
    )


def _number(value: object) -> float:
    """A number of a line; NaN if it is none, or such as no run writes."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    return float(value) if -_MOST < value < _MOST else math.nan


def _model_of(bundle: object) -> str | None:
    """Id of the model of a bundle that is there; a run that goes on has no receipt yet."""
    if not isinstance(bundle, str) or "\0" in bundle:
        return None
    path = Path(bundle) / MANIFEST_FILE
    try:
        model = _read_object(path).get("model")
    except RunFileError:
        return None
    found = model.get("id") if isinstance(model, dict) else None
    return found if isinstance(found, str) else None


def _data_name(path: str) -> str:
    """A short name of a data file: its folder's where its own says only the split."""
    found = Path(path)
    if found.stem in ("train", "data") and found.suffix and found.parent.name:
        return found.parent.name
    return found.name or path
