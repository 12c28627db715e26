"""A thread that takes the steps of a run, for apps that have none for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Protocol

from edgezo_runtime.training.step_report import StepReport

_LOG = logging.getLogger(__name__)


class Steps(Protocol):
    """Takes steps when it is iterated over, as a `Tuner` does."""

    def __iter__(self) -> Iterator[StepReport]:
        """Step until the run is over."""

    def wait_for_examples(self) -> bool:
        """Wait until a step is left; False if none will be."""


class Background:
    """Steps until the run is over, or until it is stopped.

    Args:
        tuner: takes the steps.
        keep_going: when the run is over, wait for more examples.
    """

    def __init__(self, tuner: Steps, *, keep_going: bool) -> None:
        self._tuner = tuner
        self._keep_going = keep_going
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgezo-steps", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Is the thread alive?"""
        return self._thread.is_alive()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the steps.

        Args:
            timeout_s: how long; None for as long as it takes.
        Returns:
            Whether they have ended.
        Raises:
            EdgezoError: the error that ended the steps.
        """
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def leave(self) -> None:
        """Wait until the thread has ended, unless it is the calling one."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            for _ in self._tuner:
                pass
            while self._keep_going and self._tuner.wait_for_examples():
                for _ in self._tuner:
                    pass
        except BaseException as error:  # `join` raises it in a thread of the app
            self._error = error
            _LOG.error("an error ended the steps: %s", str(error) or type(error).__name__)
