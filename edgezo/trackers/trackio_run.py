"""Runs of Trackio, in its local store; TRACKIO_SPACE_ID sends them to a Space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgezo.trackers.tracker import TrackedRun

PROJECT = "edgezo"


def load() -> None:
    """Import the library, so that a budget counts it."""
    import trackio  # noqa: F401


class TrackioRun:
    """Logs to a run.

    Args:
        run: it has begun.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run; the library would finish it once more at the end of the process."""
        import trackio

        trackio.finish()


def open_tracker(run: TrackedRun) -> TrackioRun:
    """Begin a run in the project "edgezo"; a session that resumes goes on with the same run."""
    import trackio

    found = trackio.init(
        project=PROJECT,
        name=f"{run.name}-{run.identity[:6]}",  # it goes by names; many runs are called "run"
        config=dict(run.settings),
        resume="allow",
        embed=False,
    )
    return TrackioRun(found)
