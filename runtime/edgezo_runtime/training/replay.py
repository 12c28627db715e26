"""The state of a run from its bundle and its journal alone: no data, no pass through the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter, load_adapter
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import RunFileError, UsageError, printable
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader, differences
from edgezo_runtime.training.training_state import TrainingState
from edgezo_runtime.training.trajectory import Trajectory

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run that was rebuilt from its journal.

    Attributes:
        header: inputs of the run.
        state: state after the last complete record.
        kept: the adapter after the step that was asked for.
        kept_step: that step.
        incomplete_bytes: bytes of an incomplete record at the end, which a crash left.
    """

    header: RunHeader
    state: TrainingState
    kept: dict[str, Float32]
    kept_step: int
    incomplete_bytes: int


def replay(
    bundle: Bundle,
    journal: Path,
    adapter: Path | None = None,
    *,
    step: int | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Replayed:
    """Apply the recorded steps of a run to the trainables of its bundle.

    Args:
        bundle: the bundle that was tuned.
        journal: journal of the run; only read.
        adapter: initial adapter of the run; None takes the copy beside the journal, if there is
            one.
        step: number of steps after which the adapter is wanted; None takes all.
        tell: given the number of steps that were applied, after each.

    Raises:
        UsageError: the journal has fewer steps.
        BundleError: a file of the bundle has another digest than its manifest says.
        RunFileError: the journal is damaged, belongs to another bundle, or does not fit it.
    """
    contents = read_journal(journal)
    header = RunHeader.read(contents.header.meta, journal)
    files = {name: info.sha256 for name, info in bundle.manifest.files.items()}
    other = differences({"bundle": header.bundle}, {"bundle": files})
    if other:
        raise RunFileError(
            f"{journal}: not of the bundle {bundle.root}: {'; '.join(other[:3])}; name the bundle "
            f"that was tuned"
        )
    bundle.verify_once()
    initial = _initial_adapter(header, journal, adapter)
    params = None if initial is None else initial.params(bundle)
    try:
        trajectory = Trajectory(bundle, header.config, header.rows, params)
        trajectory.use(header.rates)
    except UsageError as error:
        raise RunFileError(
            f"{journal}: the header does not fit the bundle: {printable(error, 400)}; replay it "
            f"with the bundle that was tuned"
        ) from error
    kept = trajectory.state.adapter() if step == 0 else None
    for record in contents.records:
        try:
            trajectory.replay(record)
        except RunFileError as error:
            raise RunFileError(f"{journal}: {error}") from error
        tell(trajectory.state.step)
        if trajectory.state.step == step:
            kept = trajectory.state.adapter()
    state = trajectory.state
    if step is not None and kept is None:
        raise UsageError(f"`step` {step}: {journal} has {state.step} steps; name one of them")
    return Replayed(
        header,
        state,
        state.adapter() if kept is None else kept,
        state.step if step is None else step,
        contents.incomplete_bytes,
    )


def _initial_adapter(header: RunHeader, journal: Path, given: Path | None) -> Adapter | None:
    """Load the initial adapter of a run.

    Raises:
        RunFileError: it is missing, or another adapter.
        UsageError: an adapter was given, but the run has none.
    """
    if not header.start:
        if given is not None:
            raise UsageError(
                f"`adapter` {given}: the run of {journal} has no initial adapter; leave it out"
            )
        return None
    path = given or RunFolder(journal.parent).start
    if not path.exists():
        raise RunFileError(
            f"{journal}: the initial adapter of the run is not at {path}; name it with `adapter`"
        )
    adapter = load_adapter(path)
    if adapter.tensors_sha256() != header.start:
        raise RunFileError(
            f"{path}: not the initial adapter of the run of {journal}; name another one"
        )
    return adapter
