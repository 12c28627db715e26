"""Refuse pointers of git-lfs among the files of a model."""

from __future__ import annotations

from pathlib import Path

from edgezo_runtime.errors import EdgezoError
from edgezo_runtime.system.lfs_pointer import pointer_problem

_ENDINGS = frozenset({".jinja", ".json", ".model", ".txt"})
"""Of the files beside the weights that transformers reads. Of the weights, only those that belong
to the model are read, and each is checked when it is opened."""


def refuse_pointer(path: Path) -> None:
    """Refuse a file that is a pointer.

    Raises:
        EdgezoError: it is one.
    """
    problem = pointer_problem(path)
    if problem is not None:
        raise EdgezoError(f"{path}: {problem}")


def refuse_pointers(folder: Path) -> None:
    """Refuse a folder in which a file beside the weights is a pointer.

    Raises:
        EdgezoError: naming the first one.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in _ENDINGS and file.is_file():
            refuse_pointer(file)
