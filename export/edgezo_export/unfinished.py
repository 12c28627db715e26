"""The folder of an export that is not finished; it lies beside the bundle, under a hidden name.

A killed export leaves it. The next export to the same place goes on in it, at the tensor where the
first one was, if model, settings and versions are the same; else it begins anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgezo_runtime.bundle.manifest import WEIGHTS_FILE
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.file_lock import HELD, lock
from edgezo_runtime.system.files import open_descriptor


def folder_of(output: Path) -> Path:
    """Return the folder of an export to `output` that is not finished."""
    return output.with_name(f".{output.name}.export")


class Unfinished:
    """The folder for one bundle, locked by this process.

    Args:
        output: the bundle.

    Attributes:
        folder: of the log of written tensors.
        bundle: of the files that will be the bundle.

    Raises:
        UsageError: another process exports to the same place.
        OSError: the folder cannot be made.
    """

    def __init__(self, output: Path) -> None:
        self.folder = folder_of(output)
        self.bundle = self.folder / "bundle"
        self._output = output
        self._old = self.folder / "old"
        output.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = open_descriptor(self.folder / "lock", os.O_RDWR | os.O_CREAT, follow=False)
        try:
            self._claim()
        except BaseException:
            os.close(self._lock)
            raise
        self._restore()
        self.bundle.mkdir(exist_ok=True)
        for path in self.bundle.iterdir():  # quick to make again
            if path.name != WEIGHTS_FILE:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _claim(self) -> None:
        try:
            lock(self._lock)
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

    def finish(self) -> None:
        """Rename the bundle to its place; an old one is removed only after that."""
        self.bundle.chmod(0o755)
        if self._output.exists():
            self._output.rename(self._old)
        self.bundle.rename(self._output)
        self.discard()

    def close(self) -> None:
        """Let other processes have the folder."""
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def unfinished(output: Path) -> Iterator[Unfinished]:
    """Use the folder of an export; it is kept where a user interrupts the export."""
    made = Unfinished(output)
    try:
        yield made
    except KeyboardInterrupt:
        if not (made.bundle / WEIGHTS_FILE).is_file():
            made.discard()
        raise
    except BaseException:
        made.discard()
        raise
    finally:
        made.close()
