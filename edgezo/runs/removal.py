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


_OWNER = "created_by"
"""Key of config.json that says which program wrote it."""


def check_removable(path: Path) -> None:
    """Refuse a folder that is not surely a run's. A damaged run can be removed.

    Args:
        path: the folder.
    Raises:
        RunFileError: there is no run, or the files may be another program's.
        UsageError: the path is a link.
    """
    if path.is_symlink():
        raise UsageError(
            f"{path}: a link to {path.resolve()}; nothing was removed; name that folder itself"
        )
    if not path.exists():
        raise RunFileError(f"{path}: no such run folder; 'edgezo runs' lists those of a folder")
    folder = RunFolder(path)
    if not path.is_dir() or not is_run(path):
        raise RunFileError(f"{path}: holds no run; nothing was removed")
    if not folder.has_journal() and not _has_settings(folder):
        raise RunFileError(
            f"{path}: has neither the journal nor the settings of a run, so its files may be "
            f"another program's; nothing was removed; remove it by hand if it is a run's"
        )


def _has_settings(folder: RunFolder) -> bool:
    """Is config.json one that edgezo wrote?"""
    try:
        found = folder.settings()
    except RunFileError:
        return False
    return str(found.get(_OWNER)).split()[:1] == ["edgezo"]


def remove_run(path: Path) -> list[Path]:
    """Remove a run and its folder.

    The journal goes last: until then the folder still counts as a run.

    Args:
        path: the folder.
    Returns:
        Other files in the folder, which are kept, and the folder with them.
    Raises:
        RunFileError: there is no run, or a file cannot be removed.
        UsageError: the path is a link, or a process tunes in the folder.
    """
    check_removable(path)
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
