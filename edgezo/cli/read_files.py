"""What a command reads, which it must not write over, with --force neither."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgezo_runtime.bundle.bundle import MANIFEST_FILE, Bundle
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.run_folder import RunFolder


def bundle_files(bundle: Bundle) -> list[Path]:
    """Every file of a bundle."""
    return [bundle.root / name for name in (MANIFEST_FILE, *bundle.manifest.files)]


def bundle_folder(root: Path) -> list[Path]:
    """A folder, and every file in it, if it is a bundle's, which need not be whole."""
    return [root, *root.rglob("*")] if (root / MANIFEST_FILE).is_file() else []


def model_files(path: Path) -> list[Path]:
    """A base model: its file, or its folder and what a checkpoint consists of."""
    return [path, *path.glob("*.json"), *path.glob("*.safetensors")]


def run_files(run: RunFolder) -> list[Path]:
    """What a run keeps for itself: all but its adapter and its snapshot."""
    return [
        run.journal,
        run.config,
        run.metrics,
        run.receipt,
        run.cache,
        run.examples,
        run.start,
        run.path / "lock",
    ]


def keep_files(option: str, path: Path, files: Iterable[Path]) -> None:
    """Refuse a place where files lie that are read: one of them, or a folder that has some.

    Args:
        option: what names the place, for the message.
        path: where something is to be written; need not be there yet.
        files: files or folders.
    Raises:
        UsageError: it is one of them, or they lie in it.
    """
    for kept in files:
        if is_same(path, kept):
            raise UsageError(
                f"{option} {path}: a file that is read, or that a bundle or a run consists of; "
                f"name another"
            )
        if path.is_dir() and path.resolve() in kept.resolve().parents and kept.exists():
            raise UsageError(f"{option} {path}: {kept} lies in it, and is read; name another")


def is_same(one: Path, other: Path) -> bool:
    """Do two names lead to one file, which need not be there yet?"""
    if one.exists() and other.exists() and one.samefile(other):
        return True
    return one.resolve() == other.resolve()
