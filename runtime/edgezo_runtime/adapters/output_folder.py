"""Folders that hold an adapter or a model for other tools: written whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.system.files import sync_descriptor, sync_directory


@dataclass(frozen=True, slots=True)
class FolderKind:
    """The files of a folder of some format.

    Attributes:
        marker: the file that each such folder has.
        names: files that may lie there besides.
        endings: suffixes of files that may lie there besides.
    """

    marker: str
    names: frozenset[str] = frozenset()
    endings: frozenset[str] = frozenset()

    def has(self, entry: Path) -> bool:
        """Can this be a file of such a folder?"""
        known = entry.name == self.marker or entry.name in self.names
        return (known or entry.suffix in self.endings) and not entry.is_dir()


@contextlib.contextmanager
def new_folder(folder: Path, force: bool, kind: FolderKind) -> Iterator[Path]:
    """Give a temporary folder that takes its name when the block ends well.

    On leaving: fsync of the files, rename, fsync of the directory. What is replaced is moved aside
    first, and removed last.

    Args:
        folder: made; must not exist, or be a folder of the same kind that `force` replaces. The
            folder that a link leads to is meant.
        force: replace it.
        kind: of the folder.
    Yields:
        The temporary folder, beside it.
    Raises:
        UsageError: something is in the way.
        RunFileError: it cannot be written.
    """
    check_folder(folder, force, kind)
    target = Path(os.path.realpath(folder))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name[:100]}."
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        aside = made.with_name(f"{made.name}.old")
        try:
            yield made
            for file in made.iterdir():
                file.chmod(0o644)
                with file.open("rb+") as stream:
                    sync_descriptor(stream.fileno())
            made.chmod(0o755)
            sync_directory(made)
            if target.exists():
                target.rename(aside)
            try:
                made.rename(target)
            except BaseException:
                if aside.exists():
                    aside.rename(target)
                raise
            sync_directory(target.parent)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFileError(f"{folder}: cannot be written: {reason}") from error


def check_folder(folder: Path, force: bool, kind: FolderKind) -> None:
    """Refuse to write over what is there.

    Raises:
        UsageError: it exists and `force` is off, it is another kind of folder, or it has more than
            folders of this kind have, which would be lost.
    """
    if not folder.exists():
        return
    if not force:
        raise UsageError(f"{folder}: exists; choose another place or set `force`")
    if not folder.is_dir():
        raise UsageError(f"{folder}: a file; this format is a folder")
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(f"{folder}: this process works in it; choose another place")
    entries = sorted(folder.iterdir())
    if entries and not (folder / kind.marker).is_file():
        raise UsageError(
            f"{folder}: has no {kind.marker}; `force` replaces folders of this format only"
        )
    more = [entry.name for entry in entries if not kind.has(entry)]
    if more:
        raise UsageError(
            f"{folder}: has {more[0]!r:.100}, which this format has not and `force` would remove; "
            f"choose another place"
        )
