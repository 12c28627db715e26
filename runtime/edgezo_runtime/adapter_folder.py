"""Folders that hold an adapter or a model for other tools: made whole, or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgezo_runtime.errors import RunFileError, UsageError


@contextlib.contextmanager
def new_folder(folder: Path, force: bool, marker: str) -> Iterator[Path]:
    """Give a temporary folder that takes its name when the block ends well.

    Args:
        folder: made; must not exist, or be a folder of the same kind that `force` replaces.
        force: replace it.
        marker: the file that folders of this kind have.
    Yields:
        The temporary folder, beside it.
    Raises:
        UsageError: something is in the way.
        RunFileError: it cannot be written.
    """
    check_folder(folder, force, marker)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield made
            for file in made.iterdir():
                file.chmod(0o644)
            made.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise RunFileError(f"{folder}: cannot be written: {error.strerror}") from error


def check_folder(folder: Path, force: bool, marker: str) -> None:
    """Refuse to write over what is there.

    Raises:
        UsageError: it exists and `force` is off, or it is another kind of folder.
    """
    if not folder.exists():
        return
    if not force:
        raise UsageError(f"{folder}: exists; choose another place or pass --force")
    if not folder.is_dir():
        raise UsageError(f"{folder}: a file; this format is a folder")
    if any(folder.iterdir()) and not (folder / marker).is_file():
        raise UsageError(f"{folder}: has no {marker}; --force replaces folders of this format only")
