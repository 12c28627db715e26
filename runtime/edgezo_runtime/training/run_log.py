"""The records of a run in its folder: journal, snapshot, and examples that were added."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import OtherInputsError, RunFileError, UsageError
from edgezo_runtime.journal.example_log import ExampleLog
from edgezo_runtime.journal.journal import Journal, JournalContents, read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader, differences
from edgezo_runtime.journal.snapshot import load_snapshot, save_snapshot
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.journal.sync_policy import SyncPolicy
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.step_evaluator import StepEvaluator
from edgezo_runtime.training.trajectory import Trajectory

_POLICY = SyncPolicy(every_steps=None, every_s=1.0)


class RunLog:
    """The records of a run. One thread at a time, except for `examples`, `add` and `closed`.

    Args:
        folder: folder of the run.
        trajectory: the state that records change and a resume restores.
        evaluator: receives examples that are added.
        initial: the examples that the run begins with.
        config: how to tune.
        adapter: initial adapter; None for the bundle's own trainables.

    Attributes:
        folder: folder of the run.
    """

    def __init__(
        self,
        folder: RunFolder,
        trajectory: Trajectory,
        evaluator: StepEvaluator,
        initial: ExampleSet,
        config: TuneConfig,
        adapter: Adapter | None = None,
    ) -> None:
        self.folder = folder
        self._trajectory = trajectory
        self._evaluator = evaluator
        self._initial = initial
        self._config = config
        self._adapter = adapter
        self._journal: Journal | None = None
        self._inputs: RunHeader | None = None
        self._added: ExampleLog | None = None
        self._begun = 0
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Is no journal open?"""
        return self._journal is None

    @property
    def examples(self) -> ExampleSet:
        """The examples that the run began with, and those that were added."""
        return self._initial if self._added is None else self._added.examples

    # --- begin and resume ---

    def begin(self, rates: Rates) -> None:
        """Start a new run with these rates.

        Raises:
            RunFileError: a file cannot be written.
        """
        self._use(rates)
        if self.folder.examples.exists():
            raise RunFileError(
                f"{self.folder.examples}: examples were added to a run whose journal is gone; "
                f"restore it from a copy, or choose another folder"
            )
        if self._adapter is not None:
            self._adapter.save(self.folder.start)
        elif self.folder.start.exists():  # of a run that was interrupted before it had a journal
            self.folder.start.unlink()
        for stale in (self.folder.evaluations, self.folder.best):  # of a run without its journal
            stale.unlink(missing_ok=True)
        self._journal = Journal.create(self.folder.journal, self._header().as_json(), _POLICY)
        self._open_added()
        self.snapshot()

    def recall(self) -> None:
        """Divide the blocks as the run in the folder does, and load the examples that were added.

        Raises:
            RunFileError: the run's files are damaged or belong to other inputs.
        """
        if self.folder.has_journal():
            rates = self._recorded(read_journal(self.folder.journal))
            self._trajectory.keep_first_order(rates.num_first_order)
            self._open_added()

    def resume(self) -> None:
        """Restore the state of the run in the folder: its snapshot, then the rest of its journal.

        Raises:
            RunFileError: the run's files are damaged or belong to other inputs.
        """
        contents = read_journal(self.folder.journal)
        self._use(self._recorded(contents))
        self._open_added(afresh=True)  # another process may have added examples since `recall`
        trajectory = self._trajectory
        if self.folder.snapshot.exists():
            digest = self.digest()
            snapshot = load_snapshot(
                self.folder.snapshot, digest, trajectory.state.snapshot(digest)
            )
            # A disk may lose records that it reported as safe. Then the journal alone restores the
            # state: a replay could not fill a gap between journal and snapshot.
            if snapshot.step <= sum(1 for _ in contents.records):
                trajectory.state.restore(snapshot)
        grown_at: int | None = None
        for number, record in enumerate(read_journal(self.folder.journal).records):
            if record.step != number:
                raise RunFileError(
                    f"{self.folder.journal}: step {record.step} where step {number} should be; "
                    f"edgezo did not write that; start again in another folder"
                )
            if self._see(record):
                grown_at = number
            if number >= trajectory.state.step:
                self._replay(record)
        self._regrow(grown_at)
        self._journal = Journal.open(self.folder.journal, _POLICY)

    def _regrow(self, step: int | None) -> None:
        """Give the evaluator as many examples as the last recorded step had.

        Args:
            step: the first step that had so many; None if none were added.
        """
        rows = self._trajectory.layout.rows
        if rows > len(self.examples):
            raise RunFileError(
                f"{self.folder.examples}: {len(self.examples)} examples, and the journal has a "
                f"step with {rows}; restore the file from a copy"
            )
        if step is not None and rows >= self._evaluator.probes.num_examples:
            self._evaluator.grow(self.examples.first(rows), step)

    def _see(self, record: StepRecord) -> bool:
        try:
            return self._trajectory.see_rows(record)
        except RunFileError as error:
            raise RunFileError(f"{self.folder.journal}: {error}") from error

    def _replay(self, record: StepRecord) -> None:
        try:
            self._trajectory.replay(record)
        except RunFileError as error:
            raise RunFileError(f"{self.folder.journal}: {error}") from error

    def _use(self, rates: Rates) -> None:
        """Begin with these rates and a new state."""
        self._trajectory.use(rates)
        self._trajectory.state.elapsed_s = rates.seconds

    def _recorded(self, contents: JournalContents) -> Rates:
        """The rates in the header of a journal.

        Raises:
            OtherInputsError: the journal is that of a run with other inputs.
        """
        found = RunHeader.read(contents.header.meta, self.folder.journal)
        changed = differences(found.inputs(), self._header().inputs())
        if changed:
            old, new = found.reading, self._initial.reading
            if old is not None and new is not None:  # says more than a digest
                changed = [*old.differences(new), *changed]
            raise OtherInputsError(
                f"{self.folder.path}: cannot be resumed, the run was started with other inputs: "
                f"{'; '.join(changed)}; use the same inputs, or choose another folder"
            )
        return found.rates

    def digest(self) -> str:
        """SHA-256 of the inputs of the run."""
        return self._header().digest()

    def _header(self) -> RunHeader:
        """The inputs of the run, and its rates."""
        trajectory = self._trajectory
        if self._inputs is None:
            adapter = "" if self._adapter is None else self._adapter.tensors_sha256()
            self._inputs = RunHeader.of(
                trajectory.bundle,
                self._config,
                self._initial,
                self._evaluator.probes.scope,
                trajectory.rates,
                adapter,
                self._evaluator.probes.objective.reward,
            )
        return dataclasses.replace(self._inputs, rates=trajectory.rates)

    def _open_added(self, *, afresh: bool = False) -> None:
        if self._added is None or afresh:
            vocab_size = self._trajectory.bundle.manifest.model.vocab_size
            digest = self.digest()
            self._added = ExampleLog(self.folder.examples, digest, self._initial, vocab_size)

    # --- records ---

    @contextmanager
    def recording(self, record: StepRecord) -> Iterator[None]:
        """Append a step to the journal; the body of the context applies it.

        If the body fails for another reason than memory, the run is closed: the journal then has a
        step that the state lacks, or has in part.

        Raises:
            MemoryError: memory was refused, before or after the step was in the journal.
            RunFileError: the record cannot be written.
        """
        journal = self._require()
        try:
            journal.append(record)
            yield
        except MemoryError:
            raise
        except BaseException:
            self._journal = None
            journal.abandon()
            raise

    def sync(self) -> None:
        """Wait until all steps are on the disk; do nothing if the run is closed.

        Raises:
            RunFileError: they cannot be written.
        """
        if self._journal is not None:
            self._journal.sync()

    def add(self, more: ExampleSet) -> int:
        """Add examples; they are on the disk when this returns. Any thread may call this.

        Returns:
            The number of all examples.
        Raises:
            RunFileError: they cannot be written.
            UsageError: the run is closed.
        """
        with self._lock:
            if self._added is None or self._journal is None:
                raise UsageError("the tuner is closed")
            self._added.append(more.examples, max(self._begun, self._trajectory.state.step))
            return len(self._added.examples)

    def examples_at(self, step: int) -> ExampleSet:
        """The examples of a step that begins now; those added afterwards are for later steps."""
        with self._lock:
            self._begun = max(self._begun, step + 1)
            if self._added is None:
                return self._initial
            return self._added.examples.first(self._added.count_at(step))

    def snapshot(self) -> None:
        """Write the state, so that a resume has less to replay.

        Raises:
            RunFileError: it cannot be written.
            UsageError: the run is closed.
        """
        self._require().sync()
        save_snapshot(self.folder.snapshot, self._trajectory.state.snapshot(self.digest()))

    def _require(self) -> Journal:
        if self._journal is None:
            raise UsageError("the tuner is closed")
        return self._journal

    def close(self) -> None:
        """Make the journal durable.

        Raises:
            RunFileError: the last records cannot be written.
        """
        with self._lock:  # waits for `add`, so that no examples are stored in part
            journal, self._journal = self._journal, None
            if self._added is not None:
                self._added.close()
        if journal is not None:
            journal.close()
