"""The folder of an export that is not finished; it lies beside the bundle, under a hidden name.

A killed export leaves it. The next export to the same place goes on in it, at the tensor where the
first one was, if model, settings and versions are the same; else it begins anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from edgezo_runtime.bundle.manifest import FORMAT, MANIFEST_FILE, WEIGHTS_FILE
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.file_lock import HELD, lock
from edgezo_runtime.system.files import open_descriptor

_OLD, _LOCK = "old", "lock"


def folder_of(output: Path) -> Path:
    """Return the folder of an export to `output` that is not finished."""
    place = Path(os.path.abspath(output))  # "." has no name of its own
    return place.with_name(f".{place.name}.export")


def check_output(output: Path, force: bool) -> None:
    """Refuse to overwrite an existing file or folder, and to remove anything but a bundle.

    An old bundle that an ended process has left beside its place is put back first.

    Raises:
        UsageError: `output` exists and force is off, or it is not a bundle, or a file is in its
            place or above it; or another process exports to it.
    """
    restore(output)
    _check_place(output, force)


def _check_place(output: Path, force: bool) -> None:
    taken = next((place for place in (output, *output.parents) if place.is_file()), None)
    if taken is not None:
        raise UsageError(
            f"{taken}: is a file, and a bundle is a folder; choose another `output` (`force` "
            f"replaces only bundles)"
        )
    if not output.exists():
        return
    if not force:
        raise UsageError(f"{output}: exists; choose another `output` or pass `force` to replace it")
    empty = output.is_dir() and not output.is_symlink() and not any(output.iterdir())
    if not empty and not _is_bundle(output):
        raise UsageError(f"{output}: exists and is not a bundle; `force` replaces only bundles")


def _is_bundle(folder: Path) -> bool:
    """Recognize bundles by content, even damaged ones; other programs write manifest.json too."""
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT and not folder.is_symlink()


def restore(output: Path) -> None:
    """Put back a bundle that an export was about to replace when its process ended.

    Raises:
        UsageError: as `Unfinished`.
        OSError: as `Unfinished`.
    """
    if not output.exists() and (folder_of(output) / _OLD).is_dir():
        Unfinished(output).close()


class Unfinished:
    """The folder for one bundle, locked by this process.

    Args:
        output: the bundle.

    Attributes:
        folder: of the log of written tensors.
        bundle: of the files that will be the bundle.

    Raises:
        UsageError: another process exports to the same place, or the folder is not this user's.
        OSError: the folder cannot be made.
    """

    def __init__(self, output: Path) -> None:
        self.folder = folder_of(output)
        self.bundle = self.folder / "bundle"
        self._output = output
        self._old = self.folder / _OLD
        output.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            self._restore()
            self.bundle.mkdir(exist_ok=True)
            for path in self.bundle.iterdir():  # quick to make again
                if path.name != WEIGHTS_FILE:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        except BaseException:
            self.close()
            raise

    def _locked(self) -> int:
        """Return the descriptor of the lock file, locked."""
        while True:
            self._make_folder()
            try:
                descriptor = open_descriptor(
                    self.folder / _LOCK, os.O_RDWR | os.O_CREAT, follow=False
                )
            except FileNotFoundError:
                continue  # another process has just removed the folder
            try:
                self._claim(descriptor)
                if self._is_current(descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _make_folder(self) -> None:
        """Make the folder; refuse one that another user could have put there."""
        with contextlib.suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        try:
            found = self.folder.lstat()
        except FileNotFoundError:
            return
        foreign = hasattr(os, "getuid") and found.st_uid != os.getuid()
        if foreign or not stat.S_ISDIR(found.st_mode):
            raise UsageError(
                f"{self.folder}: an export is written there, and it is "
                f"{'of another user' if foreign else 'a link or a file'}; remove it, or choose "
                f"another `output`"
            )

    def _is_current(self, descriptor: int) -> bool:
        """Is the locked file the one that other processes lock?"""
        own = os.fstat(descriptor)
        try:
            return os.path.samestat(own, (self.folder / _LOCK).lstat())
        except FileNotFoundError:
            return False

    def _claim(self, descriptor: int) -> None:
        try:
            lock(descriptor)
        except OSError as error:
            if error.errno not in HELD:
                return  # the file system has no locks
            raise UsageError(
                f"{self._output}: another process exports to it; wait until it ends, or choose "
                f"another `output`"
            ) from error

    def _restore(self) -> None:
        """Put back an old bundle that a process ended without replacing."""
        if not self._old.exists():
            return
        if self._output.exists():
            shutil.rmtree(self._old)
        else:
            self._old.rename(self._output)

    def finish(self, force: bool) -> None:
        """Rename the bundle to its place; an old one is removed only after that.

        Args:
            force: may it replace a bundle?
        Raises:
            UsageError: something has come to be at its place that may not be replaced.
            OSError: it cannot be renamed; an old bundle is where it was.
        """
        _check_place(self._output, force)
        self.bundle.chmod(0o755)
        if self._output.exists():
            self._output.rename(self._old)
        try:
            self.bundle.rename(self._output)
        except BaseException:
            self._restore()
            raise
        self.discard()

    def close(self) -> None:
        """Let other processes have the folder."""
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def discard(self) -> None:
        """Remove the folder, but not an old bundle that is nowhere else.

        The lock is removed last: while there is something to remove, no one else may write.
        """
        kept = {_LOCK} if self._output.exists() else {_LOCK, _OLD}
        for path in self.folder.iterdir() if self.folder.exists() else ():
            if path.name in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        with contextlib.suppress(OSError):
            (self.folder / _LOCK).unlink()
            self.folder.rmdir()


@contextlib.contextmanager
def unfinished(output: Path) -> Iterator[Unfinished]:
    """Use the folder of an export.

    It is kept where a user interrupts the export, or where the place is taken when it ends.
    """
    made = Unfinished(output)
    try:
        yield made
    except (KeyboardInterrupt, UsageError):
        if not (made.bundle / WEIGHTS_FILE).is_file():
            made.discard()
        raise
    except BaseException:
        made.discard()
        raise
    finally:
        made.close()
