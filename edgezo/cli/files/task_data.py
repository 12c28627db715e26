"""Data files of a run: a file, a folder of splits, or the data set that comes with edgezo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.folders import find_split, resolve
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.typed_json import JsonShapeError, parse_object

PACKAGED = "device_commands"
"""Name of the data set that comes with edgezo."""

NONE = "none"
"""In place of a file: no such rows."""

TASK_FILE = "task.json"
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class TaskData:
    """Data files.

    Attributes:
        train: rows to tune on.
        valid: rows to evaluate on before and after, or None.
        test: rows to evaluate on at the end, or None.
    """

    train: DataFiles
    valid: DataFiles | None
    test: DataFiles | None

    def files(self) -> Iterator[tuple[str, DataFiles]]:
        """Pairs of split and file, the training split first."""
        for name, file in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            if file is not None:
                yield name, file


def find_task(data: Sequence[str], valid: Sequence[str] = (), test: Sequence[str] = ()) -> TaskData:
    """Find the files of a task.

    Args:
        data: files, folders, or the name of the packaged set.
        valid: files or folders; () takes the split of the data folders, if there is one; `NONE`
            takes none.
        test: the same for the test rows.
    Raises:
        UsageError: a file is given twice.
        DataError: a file is missing; or a folder has two files for validation, and none is named.
    """
    return TaskData(
        train=resolve(paths_of_data(data), "train"),
        valid=_find(data, "valid", valid),
        test=_find(data, "test", test),
    )


def _find(data: Sequence[str], split: str, given: Sequence[str]) -> DataFiles | None:
    if given:
        return None if tuple(given) == (NONE,) else resolve(given, split)
    folders = [path for path in paths_of_data(data) if path.is_dir()]
    try:
        found = [part for part in (find_split(path, split) for path in folders) if part is not None]
    except DataError as error:
        raise DataError(f"{error}: --{split} FILE, or --{split} {NONE}") from error
    return found[0] if len(found) == 1 else DataFiles.together(found) if found else None


def keep_splits(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that resumes, with the rows that it was started with.

    A run of an earlier version took the test rows of the packaged set only; its config.json names
    none. Rows that it did not plan for might not fit its budget.

    Args:
        saved: values of its config.json.
    """
    if not saved.get("test") and tuple(saved.get("data", (PACKAGED,))) != (PACKAGED,):
        return {**saved, "test": (NONE,)}
    return dict(saved)


def paths_of_data(data: Sequence[str]) -> list[Path]:
    """Paths, with the folder of the packaged set in place of its name."""
    packaged = Path(str(files("edgezo"))) / "data" / PACKAGED
    return [packaged if path == PACKAGED else Path(path) for path in data]


def folder_with_task(data: Sequence[str]) -> Path | None:
    """The folder whose task.json says how rows are read; None where the data are not one folder."""
    paths = paths_of_data(data)
    return paths[0] if len(paths) == 1 and paths[0].is_dir() else None


def read_task(folder: Path) -> tuple[str | None, tuple[str, ...]]:
    """Template and label words of a folder's task.json; none without that file.

    Raises:
        DataError: the file is not as expected.
    """
    file = folder / TASK_FILE
    if not file.is_file():
        return None, ()
    try:
        content = parse_object(read_regular(file, _LARGEST_FILE).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, JsonShapeError) as error:
        raise DataError(f"{file}: is not a JSON object: {error}") from error
    template, labels = content.get("template"), content.get("labels", [])
    strings = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if not isinstance(template, str) or not strings or not isinstance(labels, list):
        raise DataError(f'{file}: expected "template", a string, and "labels", a list of strings')
    return template, tuple(labels)
