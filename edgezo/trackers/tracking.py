"""Hands the entries of a run's metrics to its trackers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TextIO

from edgezo.trackers.tracker import Open, TrackedRun, Tracker
from edgezo.trackers.values import tracked_values


class Tracking:
    """The trackers of a session. One that fails is left out from then on; the run goes on.

    Args:
        openers: functions that open trackers, by name.
        run: what is tracked.
        warn: told of trackers that fail.
        aside: takes what libraries print; None is stderr. stdout is for the result of the run.
    """

    def __init__(
        self,
        openers: Mapping[str, Open],
        run: TrackedRun,
        warn: Callable[[str], None],
        aside: TextIO | None = None,
    ) -> None:
        self._warn = warn
        self._aside = aside
        self._trackers: dict[str, Tracker] = {}
        for name, opener in openers.items():
            self._do(name, partial(self._open, name, opener, run))

    def take(self, entry: Mapping[str, Any]) -> None:
        """Hand on an entry of the metrics."""
        step, values = tracked_values(entry)
        if not values:
            return
        for name, tracker in list(self._trackers.items()):
            self._do(name, partial(tracker.log, step, values))

    def close(self) -> None:
        """Close all trackers."""
        for name, tracker in list(self._trackers.items()):
            self._do(name, tracker.close)
        self._trackers.clear()

    def _open(self, name: str, opener: Open, run: TrackedRun) -> None:
        self._trackers[name] = opener(run)

    def _do(self, name: str, work: Callable[[], None]) -> None:
        """Do work of a tracker; libraries of others raise and print what they like."""
        try:
            with contextlib.redirect_stdout(self._aside or sys.stderr):
                work()
        except Exception as error:
            self._trackers.pop(name, None)
            what = str(error) or type(error).__name__
            self._warn(f"the tracker {name} failed and is left out from now on: {what:.300}")
