"""A file that a command writes. It replaces another file only with --force."""

from __future__ import annotations

from pathlib import Path

import click

from edgezo_runtime.errors import RunFileError, UsageError

force_option = click.option("--force", is_flag=True, help="replace an existing file")


def new_file(path: Path, force: bool) -> None:
    """Make the folder of a file to be written.

    Args:
        path: the file.
        force: may it replace another one?

    Raises:
        UsageError: the path is a folder, or a file that may not be replaced.
        RunFileError: the folder cannot be made.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if path.exists() and not force:
        raise UsageError(f"{path}: exists; choose another place or pass --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error
