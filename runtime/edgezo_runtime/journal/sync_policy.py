"""When the journal is forced to the disk."""

from __future__ import annotations

from dataclasses import dataclass

from edgezo_runtime.errors import UsageError


@dataclass(frozen=True)
class SyncPolicy:
    """When appended records are forced to the disk: as soon as one of the limits is reached.

    A power cut loses at most what was appended since the last sync; the run does those steps again.

    Attributes:
        every_steps: records between syncs; None is no limit.
        every_s: seconds between syncs, checked when a record is appended; None is no limit.

    Raises:
        UsageError: a limit is not above zero.
    """

    every_steps: int | None = 1
    every_s: float | None = None

    def __post_init__(self) -> None:
        for what, limit in (("every_steps", self.every_steps), ("every_s", self.every_s)):
            if limit is not None and not limit > 0:
                raise UsageError(f"sync policy: {what} must be above zero, not {limit}")

    def due(self, records: int, elapsed_s: float) -> bool:
        """Tell whether to sync, given what has been appended since the last time."""
        return (self.every_steps is not None and records >= self.every_steps) or (
            self.every_s is not None and elapsed_s >= self.every_s
        )
