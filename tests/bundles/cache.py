"""What torch makes once for many tests: bundles of tiny models, which tests read without torch, and
traces of models.

They lie in `build/KIND/SOURCES/VERSIONS`: a digest of the files that decide what is made, and one
of the packages that it was made with. Where torch is absent, the newest VERSIONS are read.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
Kind = Literal["bundles", "traces"]

_SOURCES: dict[Kind, tuple[str, ...]] = {
    "bundles": (
        "edgezo/_version.py",
        "export/**/*.py",
        "runtime/edgezo_runtime/bundle/**/*.py",
        "tests/bundles/cache.py",
        "tests/bundles/tiny.py",
        "tests/export/tiny_*.py",
        "tests/runtime/tiny_tokenizer.py",
    ),
    "traces": (
        "export/edgezo_export/trace/**/*.py",
        "tests/bundles/cache.py",
        "tests/bundles/traces.py",
    ),
}
_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxscript", "optimum", "torch", "transformers")
_KEPT_S = 24 * 3600


class MissingBundleError(Exception):
    """A bundle is not in the cache, and there is no torch to make it."""


def cached(name: str, make: Callable[[Path], object], kind: Kind = "bundles") -> Path:
    """The folder of that name in the cache.

    Tests only read it. Several processes may ask at once: one makes it, the others wait.

    Args:
        name: path below the cache.
        make: writes it to a folder that does not exist yet.
        kind: which cache.

    Raises:
        MissingBundleError: it is not there, and torch is absent.
    """
    path = _place(kind) / name
    if path.exists():
        return path
    if not has_torch():
        raise MissingBundleError(
            f"no {name} in {_place(kind)}; run 'make bundles' in an environment with torch"
        )
    with _locked(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            part = path.with_name(f"{path.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(path)
    return path


@functools.cache
def has_torch() -> bool:
    """Can bundles be made here?"""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers", "onnx"))


@functools.cache
def _place(kind: Kind) -> Path:
    sources = ROOT / "build" / kind / _digest_of_sources(kind)
    if has_torch():
        found = ((name, importlib.metadata.version(name)) for name in _PACKAGES)
        place = sources / hashlib.sha256(repr([*found]).encode()).hexdigest()[:12]
        if not place.exists():
            _forget_old_ones(sources)
            place.mkdir(parents=True, exist_ok=True)
        return place
    made = sorted(sources.glob("*"), key=lambda path: path.stat().st_mtime)
    return made[-1] if made else sources


def _digest_of_sources(kind: Kind) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _SOURCES[kind] for path in ROOT.glob(pattern)}):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _forget_old_ones(current: Path) -> None:
    for folder in current.parent.glob("*"):
        if folder != current and time.time() - folder.stat().st_mtime > _KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
