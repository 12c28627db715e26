"""Event files for TensorBoard, by tensorboardX."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgezo.trackers.tracker import TrackedRun

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER = "tensorboard"


class TensorBoard:
    """Writes scalars.

    Args:
        writer: of the event file.
    """

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def load() -> None:
    """Import the library, so that a budget counts it.

    It imports torch where that is installed, for graphs that are not drawn here. That would take
    hundreds of megabytes, so torch is hidden from it.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tensorboardX  # noqa: F401
    finally:
        if hidden:
            del sys.modules["torch"]


def open_tracker(run: TrackedRun) -> TensorBoard:
    """Begin an event file below the run's folder; steps of a lost session are purged."""
    from tensorboardX import SummaryWriter

    purged = run.step + 1 if run.step else None
    writer = SummaryWriter(str(run.folder / FOLDER), purge_step=purged, flush_secs=5)
    lines = [f"    {name} = {value}" for name, value in run.settings.items()]
    writer.add_text("settings", "\n".join(lines), run.step)
    return TensorBoard(writer)
