"""What a tracker is, and which there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from edgezo_runtime.errors import MissingExtraError, UsageError


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run that is tracked.

    Attributes:
        folder: of the run.
        name: of the folder.
        settings: values of config.json.
        step: steps that were taken before this session.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    step: int

    @property
    def identity(self) -> str:
        """Letters and digits that no run of another folder has, whatever its name is."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]


class Tracker(Protocol):
    """Receives the numbers of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers by name; `step` is the number of steps taken so far."""

    def close(self) -> None:
        """Write what is left."""


class LibraryRun:
    """Logs to a run of Weights & Biases, or of a library with the same functions.

    Args:
        run: it has begun.
        finish: ends it.
    """

    def __init__(self, run: Any, finish: Callable[[], object]) -> None:
        self._run = run
        self._finish = finish

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._finish()


Open = Callable[[TrackedRun], Tracker]

TRACKERS: Mapping[str, tuple[str, str]] = {
    "csv": ("edgezo.trackers.csv_file", ""),
    "tensorboard": ("edgezo.trackers.tensorboard", "tensorboardX"),
    "wandb": ("edgezo.trackers.wandb_run", "wandb"),
    "mlflow": ("edgezo.trackers.mlflow_run", "mlflow"),
    "trackio": ("edgezo.trackers.trackio_run", "trackio"),
}
"""Name -> module, and the library that it needs. The module has two functions: `load` imports the
library, `open_tracker` begins to track a run."""


def load_trackers(names: tuple[str, ...]) -> dict[str, Open]:
    """Import trackers and their libraries, before a budget is planned.

    Args:
        names: keys of `TRACKERS`.
    Raises:
        UsageError: there is no such tracker, or one is given twice.
        MissingExtraError: its library is not installed.
    """
    found: dict[str, Open] = {}
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"`log` {name!r:.40}: expected one of {', '.join(TRACKERS)}")
        if name in found:
            raise UsageError(f"`log` {name}: is given twice; name it once")
        module, library = TRACKERS[name]
        if library and find_spec(library) is None:
            raise MissingExtraError(
                f"{library} is not installed, and `log` {name} needs it; run pip install "
                f"'edgezo[{name}]'"
            )
        own = import_module(module)
        own.load()
        found[name] = cast(Open, own.open_tracker)
    return found
