"""Runs of MLflow: in the run's folder, unless MLFLOW_TRACKING_URI names another place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgezo.trackers.tracker import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "mlflow"
_LONGEST = 500
"""Characters of a parameter that MLflow takes."""


class MlflowRun:
    """Logs to a run.

    Args:
        client: of its store.
        identity: of the run.
    """

    def __init__(self, client: MlflowClient, identity: str) -> None:
        self._client = client
        self._identity = identity

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        for name, value in values.items():
            self._client.log_metric(self._identity, name, value, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._client.set_terminated(self._identity)


def load() -> None:
    """Import the library, so that a budget counts it."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a file store is what offline needs
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it sends when it is imported
    import mlflow  # noqa: F401


def open_tracker(run: TrackedRun) -> MlflowRun:
    """Begin a run in the experiment "edgezo"; a session that resumes begins another one."""
    from mlflow import MlflowClient

    place = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder / FOLDER).resolve().as_uri()
    client = MlflowClient(tracking_uri=place)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "edgezo")
    known = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if known is None else known.experiment_id
    identity = client.create_run(experiment, run_name=run.name).info.run_id
    for key, value in run.settings.items():
        client.log_param(identity, key, str(value)[:_LONGEST])
    return MlflowRun(client, identity)
