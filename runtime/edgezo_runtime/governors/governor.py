"""What a governor is."""

from __future__ import annotations

from typing import Protocol


class Governor(Protocol):
    """Says whether a run may use the device now. A function without arguments will do.

    It is called at every block of a pass, by any thread: it must be quick, may be called by two at
    once, and must not call the tuner. What it raises ends the step, and comes out of
    `Tuner.step`; the state is that before the step.
    """

    def __call__(self) -> str | None:
        """None to go on; to wait, the reason in words."""
