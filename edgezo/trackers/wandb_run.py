"""Runs of Weights & Biases: offline, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from edgezo.trackers.tracker import TrackedRun


def load() -> None:
    """Import the library, so that a budget counts it."""
    import wandb  # noqa: F401


class WandbRun:
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
        """Finish the run."""
        self._run.finish()


def open_tracker(run: TrackedRun) -> WandbRun:
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
    return WandbRun(found)
