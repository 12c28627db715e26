"""A file that a command writes: never over another one unless it is told to."""

from __future__ import annotations

from pathlib import Path

import click

from edgezo_runtime.errors import RunFileError, UsageError

force_option = click.option("--force", is_flag=True, help="replace what is there")


def new_file(path: Path, force: bool) -> None:
    """Make the folder of a file that is about to be written.

    Args:
        path: of the file.
        force: may another one lie there?

    Raises:
        UsageError: a folder lies there, or a file without `force`.
        RunFileError: the folder cannot be made.
    """
    if path.is_dir():
        raise UsageError(f"{path}: a folder; name a file")
    if path.exists() and not force:
        raise UsageError(f"{path}: exists; choose another place or pass --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error
