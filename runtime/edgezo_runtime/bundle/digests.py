"""Size and SHA-256 of a bundle's files, compared with its manifest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edgezo_runtime.bundle.manifest_types import FileInfo
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.files import sha256_file
from edgezo_runtime.system.lfs_pointer import pointer_problem


def check_size(path: Path, name: str, info: FileInfo) -> None:
    """Compare the size of a file with the manifest.

    Raises:
        BundleError: it differs.
    """
    size = path.stat().st_size
    if size != info.bytes:
        problem = pointer_problem(path)
        if problem is not None:
            raise BundleError(f"bundle file {path}: {problem}")
        raise BundleError(
            f"bundle file {name!r}: {info.bytes} bytes in the manifest, {size} on disk "
            f"({path}); run 'edgezo export --force'"
        )


_Stamp = tuple[int, ...]

_VERIFIED: dict[tuple[Path, str], _Stamp] = {}
"""Stamps of the files whose digest this process has verified, by path and digest."""

_SETTLED_NS = 100_000_000
"""A file that changed more recently than this may change again without new times."""


def is_verified(path: Path, info: FileInfo) -> bool:
    """Has this process verified the digest of a file, and is the file unchanged since?"""
    return _VERIFIED.get((path, info.sha256)) == _stamp(path)


def check_digest(
    path: Path, name: str, info: FileInfo, advance: Callable[[int], None] | None = None
) -> None:
    """Compare size and digest of a file with the manifest.

    Raises:
        BundleError: it differs.
    """
    check_size(path, name, info)
    stamp = _stamp(path)
    settled = time.time_ns() - max(stamp[-2:]) > _SETTLED_NS
    try:
        found = sha256_file(path, advance)
    except OSError as error:
        raise BundleError(f"bundle file {path}: {error.strerror}") from error
    if found != info.sha256:
        raise BundleError(
            f"bundle file {path}: sha256 {info.sha256[:12]} in the manifest, "
            f"{found[:12]} on disk; run 'edgezo export --force'"
        )
    if settled:
        _VERIFIED[path, found] = stamp


def _stamp(path: Path) -> _Stamp:
    """Values that change when a file does."""
    info = path.stat()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
