"""Memory sizes as people write them: "8GB", "8GiB", "750MB", "80%", "auto"."""

from __future__ import annotations

import re
from fractions import Fraction

from edgezo_runtime.errors import UsageError

AUTO_PERCENT = 80
"""Share of the available memory that "auto" means."""

UNITS: dict[str, int] = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

_BY_LOWER_CASE = {name.lower(): size for name, size in UNITS.items()}
_NUMBER_UNIT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) ?([a-z]*|%)", re.IGNORECASE)
_LARGEST = 2**63 - 1


def parse_size(value: str | int, *, available: int | None = None) -> int:
    """Turn a memory size into bytes.

    "8GB" is 8 * 10**9, "8GiB" is 8 * 2**30; "1.5GB", "750 MB" and lower case are fine, a bare
    number is bytes. "80%" is a share of the available memory, "auto" is `AUTO_PERCENT` of it.

    Args:
        value: the text, or a number of bytes.
        available: bytes that "%" and "auto" refer to; None asks `memory.available_bytes()`.

    Returns:
        Bytes, rounded down, 1 to 2**63 - 1.

    Raises:
        UsageError: not a size, an ambiguous unit such as "8G", zero, or above 100%.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UsageError(f"size {value!r}: expected text such as 8GB, or a number of bytes")
    if isinstance(value, int):
        return _in_range(value, value)
    text = value.strip()
    if text.lower() == "auto":
        text = f"{AUTO_PERCENT}%"
    match = _NUMBER_UNIT.fullmatch(text)
    if match is None:
        raise UsageError(f"size '{value:.60}': expected a size such as 8GB, 750MiB, 80% or auto")
    number, unit = Fraction(match[1]), match[2].lower()
    if unit == "%":
        return _in_range(int(_percent(number, value) * _available(available)), value)
    if unit and unit not in _BY_LOWER_CASE:
        raise UsageError(f"size '{value}': unknown unit '{match[2]}'; {_unit_advice(match[2])}")
    return _in_range(int(number * _BY_LOWER_CASE[unit or "b"]), value)


def format_size(size_bytes: int, *, up: bool = False) -> str:
    """Write a number of bytes with three digits and a decimal unit: "239 MB", "1.25 GB".

    Args:
        size_bytes: 0 or more.
        up: round up instead of to the nearest, so that `parse_size` of the result is not less.

    Returns:
        Text that `parse_size` understands.
    """
    names = ["B", "KB", "MB", "GB", "TB"]
    for name, larger in zip(names, [*names[1:], None], strict=True):
        unit = UNITS[name]
        for decimals in (2, 1, 0):
            digits = 0 if name == "B" else decimals
            scaled = Fraction(size_bytes * 10**digits, unit)
            count = -(-scaled.numerator // scaled.denominator) if up else round(scaled)
            if count < 1000 or (larger is None and digits == 0):
                whole, part = divmod(count, 10**digits)
                return f"{whole}.{part:0{digits}d} {name}" if digits else f"{whole} {name}"
    raise AssertionError("the last unit takes any number")


def _percent(number: Fraction, value: str) -> Fraction:
    if number > 100:
        raise UsageError(f"size '{value}': a share of the available memory is at most 100%")
    return number / 100


def _available(given: int | None) -> int:
    if given is not None:
        return given
    from edgezo_runtime.system.memory import available_bytes

    return available_bytes()


def _unit_advice(unit: str) -> str:
    if unit.upper() in {"K", "M", "G", "T"}:
        letter = unit.upper()
        return f"write {letter}B (powers of 1000) or {letter}iB (powers of 1024)"
    return f"use one of {', '.join(UNITS)}, %"


def _in_range(size: int, value: object) -> int:
    if not 0 < size <= _LARGEST:
        raise UsageError(f"size '{value}': {size} bytes is not between 1 and 2**63 - 1")
    return size
