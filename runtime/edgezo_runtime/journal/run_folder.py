"""The folder of one run: the paths of its files, and the lock of the process that writes them."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.system.file_lock import HELD, lock, unlock
from edgezo_runtime.system.files import (
    TEMPORARY,
    open_descriptor,
    read_regular,
)
from edgezo_runtime.system.typed_json import (
    LONGEST_TEXT,
    parse_object,
)


@dataclass(slots=True, eq=False, weakref_slot=True)
class RunFolder:
    """Paths of a run. `acquire` takes the lock that keeps other processes out."""

    path: Path
    _lock: int = field(default=-1, repr=False)
    _taken: bool = field(default=False, repr=False)

    @property
    def journal(self) -> Path:
        """The journal: one record per step."""
        return self.path / "journal.bin"

    @property
    def snapshot(self) -> Path:
        """Trainables and rule state after some step."""
        return self.path / "snapshot.safetensors"

    @property
    def examples(self) -> Path:
        """Examples that were added during the run."""
        return self.path / "examples.bin"

    @property
    def config(self) -> Path:
        """Resolved configuration."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: steps and evaluations."""
        return self.path / "metrics.jsonl"

    @property
    def adapter(self) -> Path:
        """The tuned trainables."""
        return self.path / "adapter.safetensors"

    @property
    def start(self) -> Path:
        """The initial adapter, if the run has one."""
        return self.path / "start.safetensors"

    @property
    def evaluations(self) -> Path:
        """Evaluations on the rows for validation."""
        return self.path / "evaluations.json"

    @property
    def rows(self) -> Path:
        """Results of single rows of the evaluations, for reports."""
        return self.path / "rows.json"

    @property
    def best(self) -> Path:
        """The best adapter so far, by those evaluations."""
        return self.path / "best.safetensors"

    @property
    def receipt(self) -> Path:
        """Resources that the run used, and its results."""
        return self.path / "receipt.json"

    @property
    def cache(self) -> Path:
        """The prefix cache: hidden states at the first active block; can be deleted."""
        return self.path / "prefix.cache"

    def has_journal(self) -> bool:
        """Does the folder hold a run?"""
        return self.journal.exists()

    def settings(self) -> dict[str, Any]:
        """Content of config.json; empty if there is no such file.

        Raises:
            RunFileError: it cannot be read.
        """
        if not self.config.is_file():
            return {}
        try:
            return parse_object(read_regular(self.config, LONGEST_TEXT).decode("utf-8"))
        except OSError as error:
            raise RunFileError(f"{self.config}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise RunFileError(f"{self.config}: not JSON: {error}") from error

    def acquire(self) -> None:
        """Make the folder and lock it for this process; the lock ends with the process.

        Raises:
            UsageError: it cannot be made or locked, or another process has it.
        """
        if self._lock >= 0:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = open_descriptor(self.path / "lock", os.O_RDWR | os.O_CREAT, follow=False)
        except OSError as error:
            raise UsageError(
                f"{error.filename or self.path}: cannot be used for a run: {error.strerror}; "
                f"choose another `output` folder"
            ) from error
        try:
            self._claim(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor
        _LOCKED.add(self)
        for left in self.path.glob(TEMPORARY):  # of a process that ended during a write
            with contextlib.suppress(OSError):
                left.unlink()

    def take(self) -> None:
        """Reserve the folder for one tuner of this process.

        Raises:
            UsageError: as for `acquire`, or another tuner of this process uses it.
        """
        if self._taken:
            raise UsageError(
                f"{self.path}: another tuner of this process has it; close that tuner first"
            )
        self.acquire()
        self._taken = True

    def in_use(self) -> bool:
        """Does a process hold the lock? The file names that process.

        The lock is tried only where such a process is alive: while it is tried, no run can begin
        in the folder.
        """
        try:
            descriptor = open_descriptor(self.path / "lock", os.O_RDONLY, follow=False)
        except OSError:
            return False
        try:
            return _names_a_process(descriptor) and _is_locked(descriptor)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Release the folder and its lock."""
        self._taken = False
        if self._lock >= 0:
            descriptor, self._lock = self._lock, -1
            try:
                unlock(descriptor)  # closing is not enough if a forked process has it open too
            finally:
                os.close(descriptor)

    def _claim(self, descriptor: int) -> None:
        """Lock the file and write the number of this process into it."""
        try:
            lock(descriptor)
        except OSError as error:
            if error.errno not in HELD:
                raise UsageError(
                    f"{self.path}: its file system cannot lock files ({error.strerror}); choose an "
                    f"`output` folder on another file system"
                ) from error
            raise UsageError(
                f"{self.path}: {_owner(descriptor)} is tuning in this folder; wait until it ends, "
                f"or choose another `output` folder"
            ) from error
        with contextlib.suppress(OSError):  # a full disk; the lock holds without it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())


def _names_a_process(descriptor: int) -> bool:
    """May the process be alive whose number the file holds?"""
    if sys.platform == "win32":  # a number cannot be asked there without a signal
        return True
    try:
        os.kill(int(os.read(descriptor, 20)), 0)
    except (ProcessLookupError, ValueError):
        return False
    except (OSError, OverflowError):  # of another user
        return True
    return True


def _is_locked(descriptor: int) -> bool:
    """Does another descriptor have the lock? Those who ask do not hinder each other."""
    try:
        if sys.platform == "win32":
            lock(descriptor)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in HELD
    unlock(descriptor)
    return False


def _close_locks() -> None:
    """Close the locks in a forked process: a lock must not outlive the process that took it."""
    for folder in _LOCKED:
        if folder._lock >= 0:
            os.close(folder._lock)
            folder._lock = -1


_LOCKED: weakref.WeakSet[RunFolder] = weakref.WeakSet()
"""Folders that this process may have locked."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)


def _owner(descriptor: int) -> str:
    """The process that holds the lock, according to the file."""
    with contextlib.suppress(OSError, ValueError):
        number = int(os.read(descriptor, 20))
        return "this process" if number == os.getpid() else f"process {number}"
    return "another process"


def find_adapter(path: Path) -> Path:
    """Find the adapter file of a run folder, or of a path that is a file.

    Raises:
        RunFileError: there is no adapter.
    """
    if not path.exists():
        raise RunFileError(f"{path}: no such run or adapter")
    if not path.is_dir():
        return path
    run = RunFolder(path)
    if run.adapter.is_file():
        return run.adapter
    if run.has_journal():
        raise RunFileError(
            f"{path}: the run has no adapter yet; to finish it: edgezo tune --resume -o "
            f"{shlex.quote(str(path))}"
        )
    raise RunFileError(f"{path}: neither a run folder nor an adapter file")
