"""Settings of the process that several commands have: its memory, threads and first checks."""

from __future__ import annotations

from typing import Any

from edgezo.cli.settings.options import setting


def budget_setting(default: Any, more: str = "") -> Any:
    """The field `budget`.

    Args:
        default: as for `setting`.
        more: what its help says further.
    """
    text = (
        "memory that the whole process may take: 8GB, 8GiB, 750MB, or a share of what is free, "
        "such as 50%; auto takes 80%"
    )
    return setting(default, text + more, metavar="SIZE")


def context_setting(what: str) -> Any:
    """The field `context`, of commands that talk.

    Args:
        what: its tokens are those of.
    """
    text = f"most tokens of {what}; 0 takes 4096, or as many as the model and the budget allow"
    return setting(0, text, metavar="N")


def threads_setting() -> Any:
    """The field `threads`."""
    return setting(0, "compute threads; 0 takes one per core")


def verify_setting() -> Any:
    """The field `verify`."""
    return setting(True, "check the digests of the bundle's files first")
