"""The interface of governors."""

from __future__ import annotations

from typing import Protocol


class Governor(Protocol):
    """Decides whether a run may use the device now. Any function without arguments will do.

    Any thread calls it at every block of a pass. So it must be quick, must allow concurrent calls,
    and must not call the tuner. An exception ends the step and is raised by `Tuner.step`; the state
    is that before the step.
    """

    def __call__(self) -> str | None:
        """Return the reason to wait as text, or None."""
