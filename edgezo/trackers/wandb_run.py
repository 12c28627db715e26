"""Runs of Weights & Biases: offline, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os

from edgezo.trackers.tracker import LibraryRun, TrackedRun


def load() -> None:
    """Import the library, so that a budget counts it."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it looks for Sentry
    import wandb  # noqa: F401


def open_tracker(run: TrackedRun) -> LibraryRun:
    """Begin a run below the run's folder; a session that resumes goes on with the same run."""
    import wandb

    found = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "edgezo"),
        name=run.name,
        id=run.identity,
        resume="allow",
        dir=str(run.folder),
        mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type, unused-ignore]
        config=dict(run.settings),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )
    return LibraryRun(found, found.finish)
