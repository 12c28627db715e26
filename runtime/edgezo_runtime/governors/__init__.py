"""When a run may use the device: battery, temperature, other work, the app itself."""

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
"""Governors that look at the system."""

GOVERNORS: dict[str, Callable[..., Sensing]] = {
    "battery": Battery,
    "idle": Idle,
    "mains": lambda: Battery(100.0),
    "thermal": Thermal,
}
"""Governors that have a name. A number may follow, as in "battery:50"; not behind "mains"."""

AUTO = ("battery", "thermal", "idle")
"""What "auto" stands for, as far as the system has the sensors."""


def make_governors(
    wanted: str | Sequence[str | Governor],
) -> tuple[tuple[Governor, ...], tuple[str, ...]]:
    """Governors by name.

    Args:
        wanted: names with commas between them, or names and governors. "auto" takes those of
            `AUTO` whose sensors can be read.
    Returns:
        The governors, and what "auto" left out, in words.
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
                    absent.append(f"{error}; not looked at")
        elif part.strip():
            made.append(_named(part.strip()))
    return tuple(made), tuple(absent)


def _named(text: str) -> Sensing:
    name, _, number = text.partition(":")
    if name not in GOVERNORS:
        raise UsageError(f"governor '{text:.40}': expected auto, or some of {', '.join(GOVERNORS)}")
    try:
        governor = GOVERNORS[name](*([float(number)] if number else []))
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"governor '{text:.40}': '{number:.20}' is no number for {name}"
        ) from error
    governor.sensor.require()
    return governor
