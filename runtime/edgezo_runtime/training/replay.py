"""The state of a run from its bundle and its journal alone: no data, no pass through the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.adapters.adapter import Adapter, load_adapter
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import RunFileError, UsageError, printable
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader, differences
from edgezo_runtime.training.training_state import TrainingState
from edgezo_runtime.training.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run as its journal tells it.

    Attributes:
        header: what the run depends on.
        state: trainables, averages, and what rules and samplers keep, after the last whole record.
        torn_bytes: bytes behind that record, of steps that a crash cut short.
    """

    header: RunHeader
    state: TrainingState
    torn_bytes: int


def replay(bundle: Bundle, journal: Path, start: Path | None = None) -> Replayed:
    """Apply the recorded steps of a run to the trainables of its bundle.

    Args:
        bundle: what was tuned.
        journal: of the run; only read.
        start: the adapter that the run began from, if it did; None takes the copy beside the
            journal.

    Raises:
        BundleError: a file of the bundle is not what its manifest says.
        RunFileError: the journal is damaged, of another bundle, or does not fit it.
    """
    contents = read_journal(journal)
    header = RunHeader.read(contents.header.meta, journal)
    files = {name: info.sha256 for name, info in bundle.manifest.files.items()}
    other = differences({"bundle": header.bundle}, {"bundle": files})
    if other:
        raise RunFileError(
            f"{journal}: not of the bundle {bundle.root}: {'; '.join(other[:3])}; name the one "
            f"that was tuned"
        )
    bundle.verify_once()
    begun = _start(header, journal, start)
    params = None if begun is None else begun.params(bundle)
    try:
        course = Trajectory(bundle, header.config, header.rows, params)
        course.use(header.rates)
    except UsageError as error:
        raise RunFileError(
            f"{journal}: the header does not fit the bundle: {printable(error, 400)}; replay it "
            f"with the bundle that was tuned"
        ) from error
    for record in contents.records:
        try:
            course.replay(record)
        except RunFileError as error:
            raise RunFileError(f"{journal}: {error}") from error
    return Replayed(header, course.state, contents.incomplete_bytes)


def _start(header: RunHeader, journal: Path, given: Path | None) -> Adapter | None:
    """The adapter that a run began from.

    Raises:
        RunFileError: it is missing, or another one.
        UsageError: the run began from none, and one was named.
    """
    if not header.start:
        if given is not None:
            raise UsageError(f"--adapter {given}: the run of {journal} began from none")
        return None
    path = given or RunFolder(journal.parent).start
    if not path.exists():
        raise RunFileError(
            f"{journal}: the run began from an adapter, which is not at {path}; name it with "
            f"--adapter"
        )
    adapter = load_adapter(path)
    if adapter.tensors_sha256() != header.start:
        raise RunFileError(f"{path}: not the adapter that the run of {journal} began from")
    return adapter
