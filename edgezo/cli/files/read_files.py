"""Files that a command reads, which it must not replace, even with --force."""

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
    """A folder and every file in it if it has a manifest; the bundle may be incomplete."""
    return [root, *root.rglob("*")] if (root / MANIFEST_FILE).is_file() else []


def model_files(path: Path) -> list[Path]:
    """A base model: its file, or its folder with the files of a checkpoint."""
    return [path, *path.glob("*.json"), *path.glob("*.safetensors")]


def run_files(run: RunFolder) -> list[Path]:
    """The files of a run, adapter and snapshot excepted."""
    return [
        run.journal,
        run.config,
        run.metrics,
        run.receipt,
        run.cache,
        run.examples,
        run.start,
        run.evaluations,
        run.rows,
        run.best,
        run.path / "lock",
    ]


def keep_files(option: str, path: Path, files: Iterable[Path]) -> None:
    """Refuse an output that would replace a file that is read.

    Args:
        option: the option that names the output, for the message.
        path: the output, which may not exist yet.
        files: files or folders that are read.
    Raises:
        UsageError: the output is one of them, or a folder that holds one.
    """
    for kept in files:
        if is_same(path, kept):
            raise UsageError(
                f"{option} {path}: is an input, or a file of a bundle or a run; name another"
            )
        if path.is_dir() and path.resolve() in kept.resolve().parents and kept.exists():
            raise UsageError(
                f"{option} {path}: the folder holds {kept}, which is an input; name another"
            )


def is_same(one: Path, other: Path) -> bool:
    """Do two paths lead to one file, which may not exist yet?"""
    if one.exists() and other.exists() and one.samefile(other):
        return True
    return one.resolve() == other.resolve()
