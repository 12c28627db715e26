"""Runs of Trackio, in its local store; TRACKIO_SPACE_ID sends them to a Space."""

from __future__ import annotations

from edgezo.trackers.tracker import LibraryRun, TrackedRun

PROJECT = "edgezo"


def load() -> None:
    """Import the library, so that a budget counts it."""
    import trackio  # noqa: F401


def open_tracker(run: TrackedRun) -> LibraryRun:
    """Begin a run in the project "edgezo"; a session that resumes goes on with the same run."""
    import trackio

    found = trackio.init(
        project=PROJECT,
        name=f"{run.name}-{run.identity[:6]}",  # it goes by names; many runs are called "run"
        config=dict(run.settings),
        resume="allow",
        embed=False,
    )
    # finished by its own function, it would be finished once more when the process ends
    return LibraryRun(found, trackio.finish)
