"""The folder of one run: what lies where, and who may write to it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from edgezo_runtime.errors import UsageError


@dataclass(slots=True)
class RunFolder:
    """Paths of a run. `acquire` takes the lock that keeps a second process out."""

    path: Path
    _lock: int = field(default=-1, repr=False)

    @property
    def journal(self) -> Path:
        """Append-only record of the steps."""
        return self.path / "journal.bin"

    @property
    def snapshot(self) -> Path:
        """Trainables and rule state at some step."""
        return self.path / "snapshot.safetensors"

    @property
    def config(self) -> Path:
        """Resolved configuration."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line: steps and evaluations."""
        return self.path / "metrics.jsonl"

    @property
    def adapter(self) -> Path:
        """The tuned trainables."""
        return self.path / "adapter.safetensors"

    @property
    def receipt(self) -> Path:
        """What the run took and gave."""
        return self.path / "receipt.json"

    @property
    def cache(self) -> Path:
        """Hidden states at the entry of the first active block; can be deleted."""
        return self.path / "prefix.cache"

    def has_journal(self) -> bool:
        """Has a run begun here?"""
        return self.journal.exists()

    def acquire(self) -> None:
        """Make the folder and lock it for this process.

        Raises:
            UsageError: it cannot be made, or another process has it.
        """
        if self._lock >= 0:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError(
                f"{self.path}: cannot be used for a run: {error.strerror}; choose another -o"
            ) from error
        if not _try_lock(self._lock):
            os.close(self._lock)
            self._lock = -1
            raise UsageError(f"{self.path}: another process is tuning in this folder")

    def release(self) -> None:
        """Let the lock go."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _try_lock(descriptor: int) -> bool:
    """Lock a file for this process; the system lets it go when the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks in the standard library's fcntl
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
