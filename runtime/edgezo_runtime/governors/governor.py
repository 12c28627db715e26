"""The protocol of governors."""

from __future__ import annotations

from typing import Protocol


class Governor(Protocol):
    """A function without arguments that decides whether a run may use the device now.

    The run calls it at every block of a pass, from any thread, and possibly from two at once. It
    must be quick and must not call the tuner. An error that it raises ends the step and leaves
    `Tuner.step`; the state is the one before the step.
    """

    def __call__(self) -> str | None:
        """Return None to let steps run, or the reason to wait, in words."""
