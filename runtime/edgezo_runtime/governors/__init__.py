"""Conditions under which a run may use the device: battery, temperature, load, foreground."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.battery import Battery
from edgezo_runtime.governors.foreground import Foreground
from edgezo_runtime.governors.governor import Governor
from edgezo_runtime.governors.idle import Idle
from edgezo_runtime.governors.thermal import Thermal

__all__ = [
    "AUTO",
    "GOVERNORS",
    "Battery",
    "Foreground",
    "Governor",
    "Idle",
    "Thermal",
    "make_governors",
]

Sensing = Battery | Idle | Thermal
"""Governors that read a sensor of the system."""

GOVERNORS: dict[str, Callable[..., Sensing]] = {
    "battery": Battery,
    "idle": Idle,
    "mains": lambda: Battery(100.0),
    "thermal": Thermal,
}
"""Named governors. A number may follow the name, as in "battery:50", but not "mains"."""

AUTO = ("battery", "thermal", "idle")
"""The governors of "auto", as far as the system has their sensors."""


def make_governors(
    wanted: str | Sequence[str | Governor],
) -> tuple[tuple[Governor, ...], tuple[str, ...]]:
    """Make governors from their names.

    Args:
        wanted: names separated by commas, or a list of names and governors. "auto" takes those of
            `AUTO` whose sensors can be read.
    Returns:
        The governors, and a message for each one that "auto" left out.
    Raises:
        UsageError: a name is unknown, its number makes no sense, or its sensor cannot be read.
    """
    parts = wanted.split(",") if isinstance(wanted, str) else wanted
    if not isinstance(parts, Sequence) or not all(isinstance(p, str) or callable(p) for p in parts):
        raise UsageError(f"governors {wanted!r:.60}: expected a list of names and functions")
    made: list[Governor] = []
    absent: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            made.append(part)
        elif part.strip() == "auto":
            for name in AUTO:
                try:
                    made.append(_named(name))
                except UsageError as error:
                    absent.append(f"{error}; it is ignored")
        elif part.strip():
            made.append(_named(part.strip()))
    return tuple(made), tuple(absent)


def _named(text: str) -> Sensing:
    name, _, number = text.partition(":")
    if name not in GOVERNORS:
        raise UsageError(f"governor '{text:.40}': expected auto, or one of {', '.join(GOVERNORS)}")
    try:
        governor = GOVERNORS[name](*([float(number)] if number else []))
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"governor '{text:.40}': '{number:.20}' is not a number that {name} takes"
        ) from error
    governor.sensor.require()
    return governor
