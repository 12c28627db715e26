"""Removes runs, and nothing else that lies in their folders."""

from __future__ import annotations

from pathlib import Path

from edgezo.runs.run_record import is_run
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.run_folder import RunFolder


def run_files_of(folder: RunFolder) -> list[Path]:
    """The files of a run that are there, the journal last."""
    files = [
        folder.snapshot, folder.examples, folder.metrics, folder.adapter, folder.start,
        folder.evaluations, folder.rows, folder.best, folder.receipt, folder.cache,
        folder.config, folder.journal,
    ]  # fmt: skip
    return [file for file in files if file.is_file() or file.is_symlink()]


def remove_run(path: Path) -> list[Path]:
    """Remove a run and its folder.

    The journal goes last: until then the folder still counts as a run.

    Args:
        path: the folder.
    Returns:
        Other files in the folder, which are kept, and the folder with them.
    Raises:
        RunFileError: there is no run, or a file cannot be removed.
        UsageError: a process tunes in the folder.
    """
    if not path.is_dir() or not is_run(path):
        raise RunFileError(f"{path}: holds no run; nothing was removed")
    folder = RunFolder(path)
    if folder.in_use():
        raise UsageError(f"{path}: a process is tuning in this folder; stop it first")
    folder.acquire()
    try:
        for file in run_files_of(folder):
            file.unlink()
        (path / "lock").unlink(missing_ok=True)
        left = sorted(path.iterdir())
        if not left:
            path.rmdir()
    except OSError as error:
        raise RunFileError(
            f"{error.filename or path}: cannot be removed: {error.strerror}"
        ) from error
    finally:
        folder.release()
    return left
