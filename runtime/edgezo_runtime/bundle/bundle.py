"""A bundle on disk: opened with its manifest checked, its files found, its digests verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgezo_runtime.bundle.digests import check_digest, check_size, is_verified
from edgezo_runtime.bundle.graph_check import check_path
from edgezo_runtime.bundle.manifest import (
    FORMAT,
    MANIFEST_FILE,
    TRAINABLE_FILE,
    VERSION,
    WEIGHTS_FILE,
    Manifest,
    SchemeInfo,
    TrainableInfo,
)
from edgezo_runtime.bundle.manifest_types import (
    Binding,
    FileInfo,
    GraphInfo,
    Graphs,
    ModelInfo,
    TensorInfo,
    TokenizerInfo,
)
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.files import read_regular, sha256_file
from edgezo_runtime.system.lfs_pointer import pointer_problem
from edgezo_runtime.system.typed_json import LONGEST_TEXT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgezo_runtime.system.safetensors_reader import TensorHeader

__all__ = [
    "FORMAT",
    "MANIFEST_FILE",
    "TRAINABLE_FILE",
    "VERSION",
    "WEIGHTS_FILE",
    "Binding",
    "Bundle",
    "FileInfo",
    "GraphInfo",
    "Graphs",
    "Manifest",
    "ModelInfo",
    "SchemeInfo",
    "TensorInfo",
    "TokenizerInfo",
    "TrainableInfo",
    "describe_files",
]

_MANIFEST_LIMIT_BYTES = LONGEST_TEXT

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle.

    Attributes:
        root: the directory, resolved.
        manifest: its manifest.
        trusted: are its files used without a check of their digests?
    """

    root: Path
    manifest: Manifest
    trusted: bool = False

    @classmethod
    def open(cls, path: str | Path, verify: bool | None = None) -> Bundle:
        """Open a bundle: read and check the manifest, then check the size of every file.

        Args:
            path: the bundle's directory.
            verify: when to check the digest of every file. True: now. None: when an engine or a
                replay first uses the bundle in this process (`verify_once`). False: never.
        Raises:
            BundleError: the bundle or a file is missing, truncated, altered, of another version,
                or a path leaves the directory.
        Memory:
            The manifest; weights are not read.
        """
        root = Path(path)
        manifest = Manifest.from_json(_read_manifest(root))
        bundle = cls(root.resolve(), manifest, trusted=verify is False)
        for name, info in manifest.files.items():
            check_size(bundle.path(name), name, info)
        if verify:
            bundle.verify()
        return bundle

    @property
    def size_bytes(self) -> int:
        """Bytes of all files the manifest lists."""
        return sum(info.bytes for info in self.manifest.files.values())

    def path(self, name: str) -> Path:
        """The file of a path the manifest lists.

        Args:
            name: a key of `manifest.files`.
        Raises:
            BundleError: not listed, missing, or a link that leaves the bundle.
        """
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.root}: {name!r:.80} is not in the manifest")
        return _resolve(self.root, name)

    def verify_once(self) -> None:
        """Check the files that this process has not verified yet, or that changed since.

        An engine does this before it maps the weights. It takes about 0.05 s per 100 MB if the
        processor has instructions for SHA-256, and four times as long if not, plus the time of the
        disk. The files of a `trusted` bundle are not checked.

        Raises:
            BundleError: naming the first file that differs.
        Memory:
            1 MiB; the files stay in the page cache.
        """
        if self.trusted:
            return
        for name, info in self.manifest.files.items():
            path = self.path(name)
            if not is_verified(path, info):
                check_digest(path, name, info)

    def verify(self, progress: Progress | None = None) -> None:
        """Check size and SHA-256 of every file.

        Args:
            progress: called with the bytes read so far and the bytes in all.
        Raises:
            BundleError: naming the first file that differs.
        Memory:
            1 MiB.
        """
        total = self.size_bytes
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        for name, info in self.manifest.files.items():
            check_digest(self.path(name), name, info, advance)

    def trainables(self) -> dict[str, npt.NDArray[np.float32]]:
        """The initial trainable tensors, in manifest order, without the leading axis P.

        Returns:
            Name to float32 array of the manifest's shape; the arrays are the caller's own.
        Raises:
            BundleError: the file is damaged, or a name, dtype or shape differs from the manifest.
        """
        from edgezo_runtime.system.safetensors_reader import (
            TensorHeaderError,
            read_tensor_header,
            read_tensors,
        )

        path = self.path(TRAINABLE_FILE)
        try:
            header = read_tensor_header(path)
            self._check_trainables(path, header)
            stored = read_tensors(path, header)
        except (TensorHeaderError, OSError) as error:
            raise BundleError(
                f"{path}: {error} while reading trainables; run 'edgezo export --force'"
            ) from error
        return {info.name: stored[info.name] for info in self.manifest.trainables}

    def _check_trainables(self, path: Path, header: TensorHeader) -> None:
        """Compare the file's header with the manifest."""
        infos = self.manifest.trainables
        odd = {*header.tensors, *header.unknown} ^ {info.name for info in infos}
        if odd:
            side = "manifest only" if min(odd) in {info.name for info in infos} else "file only"
            raise BundleError(f"{path}: trainable {min(odd)!r:.200} is in the {side}")
        for info in infos:
            found = header.tensors.get(info.name)
            dtype = "another type" if found is None else found.dtype.name
            shape = () if found is None else found.shape
            if dtype != "float32" or shape != info.shape:
                raise BundleError(
                    f"trainable {info.name!r:.200}: float32 {info.shape} in the manifest, "
                    f"{dtype} {shape} in {path}; run 'edgezo export --force'"
                )


def describe_files(root: Path, names: Iterable[str]) -> dict[str, FileInfo]:
    """Size and digest of files, for `Manifest.files`.

    Args:
        root: the bundle's directory.
        names: paths in it, with forward slashes.
    Raises:
        BundleError: a path is missing or leaves the directory.
    """
    result = {}
    for name in names:
        check_path(name)
        path = _resolve(root.resolve(), name)
        result[name] = FileInfo(path.stat().st_size, sha256_file(path))
    return result


def _read_manifest(root: Path) -> str:
    if root.is_file():
        raise BundleError(f"bundle {root} is a file; {_meant(root)}")
    if not root.is_dir():
        raise BundleError(f"bundle {root} does not exist; run 'edgezo export MODEL -o {root}'")
    if not (root / MANIFEST_FILE).exists():
        raise BundleError(
            f"bundle {root} has no {MANIFEST_FILE}; run 'edgezo export MODEL -o {root}'"
        )
    path = _resolve(root.resolve(), MANIFEST_FILE)
    problem = pointer_problem(path)
    if problem is not None:
        raise BundleError(f"{path}: {problem}")
    try:
        return read_regular(path, _MANIFEST_LIMIT_BYTES).decode("utf-8")
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read as a manifest: {error.strerror}; run 'edgezo export --force'"
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: not UTF-8; run 'edgezo export --force'") from error


def _meant(file: Path) -> str:
    """What to do about a file in place of a bundle."""
    if (file.parent / MANIFEST_FILE).exists():
        return f"name the folder that it lies in: {file.parent}"
    if file.suffix == ".gguf":
        return f"run 'edgezo export {file} -o BUNDLE', and name the folder that it makes"
    return "name the folder that 'edgezo export MODEL -o BUNDLE' makes"


def _resolve(root: Path, name: str) -> Path:
    path = root / name
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links before Python 3.13
        raise BundleError(
            f"bundle file {path} is missing or cannot be read; run 'edgezo export --force'"
        ) from error
    if not resolved.is_relative_to(root):
        raise BundleError(f"bundle file {path} is a link to {resolved}, outside the bundle")
    if not resolved.is_file():
        raise BundleError(f"bundle file {path} is not a regular file")
    return resolved
