"""Formats of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgezo_runtime.errors import UsageError

Format = Literal["html", "svg", "png", "md", "json"]
FORMATS: tuple[Format, ...] = ("html", "svg", "png", "md", "json")

_BY_SUFFIX: dict[str, Format] = {
    ".html": "html", ".htm": "html", ".svg": "svg", ".png": "png", ".md": "md", ".json": "json",
}  # fmt: skip


def format_of(output: Path, given: str | None) -> Format:
    """The format of a report.

    Args:
        output: its file.
        given: the option; None takes that of the file's suffix.
    Raises:
        UsageError: the suffix is that of no format.
    """
    found = next((name for name in FORMATS if name == given), None)
    found = found or _BY_SUFFIX.get(output.suffix.lower())
    if found is None:
        raise UsageError(
            f"-o {output}: the suffix is that of no format; give --format, one of "
            f"{', '.join(FORMATS)}"
        )
    return found
