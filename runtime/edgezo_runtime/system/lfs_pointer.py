"""Pointers of git-lfs: small text files in place of large ones that were not downloaded."""

from __future__ import annotations

import contextlib
from pathlib import Path

from edgezo_runtime.system.files import open_regular

_START = b"version https://git-lfs.github.com/spec/"
_LARGEST = 1024  # the format's own limit


def pointer_problem(path: str | Path) -> str | None:
    """Why a file cannot be read, if it is a pointer; else None.

    Args:
        path: the file; one that cannot be opened is none.
    Returns:
        What it is, and what to do.
    """
    start = b""
    with contextlib.suppress(OSError), open_regular(path) as file:
        start = file.read(_LARGEST + 1)
    if len(start) > _LARGEST or not start.startswith(_START):
        return None
    return (
        "a git-lfs pointer, not the file itself, which was not downloaded; run 'git lfs pull' in "
        f"{Path(path).parent}"
    )
