"""A thread that takes the steps of a run, for apps that do not want one of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Protocol

from edgezo_runtime.training.step_report import StepReport

_LOG = logging.getLogger(__name__)


class Steps(Protocol):
    """What takes steps when it is iterated over; a `Tuner`."""

    def __iter__(self) -> Iterator[StepReport]:
        """Step until the run is over."""

    def wait_for_examples(self) -> bool:
        """Wait until there is something left to do; False if there never is."""


class Background:
    """Steps until the run is over, or until it is stopped.

    Args:
        tuner: the run.
        keep_going: when all is learned, wait for more examples.
    """

    def __init__(self, tuner: Steps, *, keep_going: bool) -> None:
        self._tuner = tuner
        self._keep_going = keep_going
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgezo-steps", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Is the thread there still?"""
        return self._thread.is_alive()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the steps.

        Args:
            timeout_s: how long; None for as long as it takes.
        Returns:
            Whether they have ended.
        Raises:
            EdgezoError: what ended them.
        """
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def leave(self) -> None:
        """Return when the thread has ended, unless it is this one."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            for _ in self._tuner:
                pass
            while self._keep_going and self._tuner.wait_for_examples():
                for _ in self._tuner:
                    pass
        except BaseException as error:  # it is the app's to see, where it joins
            self._error = error
            _LOG.error("the steps have ended: %s", str(error) or type(error).__name__)
