"""Numbers in words: shares, durations and rates."""

from __future__ import annotations

import math
from pathlib import PurePosixPath, PureWindowsPath

_SLOWEST = 0.001
"""Slowest rate per second that is shown as a number."""


def percent(share: float | None) -> str:
    """A share as a percentage: "87.5 %"."""
    return "-" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as a short text: "40ms", "8s", "4m10s", "1h05m", "3d04h".

    Negative ones are "0s": no clock of ours goes back. What is no number, or no finite one, is "-".
    """
    if not math.isfinite(seconds):
        return "-"
    if 0 < seconds < 1 and (milliseconds := math.ceil(seconds * 1000)) < 1000:
        return f"{milliseconds}ms"
    total = max(0, round(seconds))
    if total < 60:
        return f"{total}s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"


def rate(per_second: float | None) -> str:
    """A rate per second with two significant digits: "0.7", "1.4", "12", "340", "-" if unknown."""
    if per_second is None or not math.isfinite(per_second) or per_second < 0:
        return "-"
    if per_second and per_second < _SLOWEST:
        return f"<{_SLOWEST}"
    rounded = significant(per_second)
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.6f}".rstrip("0").rstrip(".")


def model_name(model: str) -> str:
    """The name of a model: as it is, or the last part of a path."""
    local = PurePosixPath(model).is_absolute() or PureWindowsPath(model).is_absolute()
    return PureWindowsPath(model).name or model if local else model


def significant(value: float, digits: int = 2) -> float:
    """A finite number, rounded to some significant digits."""
    return float(f"{value:.{digits}g}")
