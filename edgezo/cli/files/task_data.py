"""Data files of a run: a file, a folder of splits, or the data set that comes with edgezo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.folders import find_split, resolve
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.typed_json import JsonShapeError, parse_object

PACKAGED = "device_commands"
"""Name of the data set that comes with edgezo."""

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


def find_task(data: str, valid: str | None = None, test: str | None = None) -> TaskData:
    """Find the files of a task.

    Args:
        data: a .jsonl file, a folder, or the name of the packaged set.
        valid: file or folder; None takes the split of the data folder, if there is one.
        test: file or folder; None takes the split of the packaged set, and none of other folders.
    Raises:
        DataError: a file is missing.
    """
    source = folder_of(data)
    own_valid = find_split(source, "valid") if source.is_dir() else None
    own_test = find_split(source, "test") if data == PACKAGED else None
    return TaskData(
        train=resolve(source, "train"),
        valid=resolve(valid, "valid") if valid is not None else own_valid,
        test=resolve(test, "test") if test is not None else own_test,
    )


def folder_of(data: str) -> Path:
    """The folder of the packaged set for its name, else the path itself."""
    return Path(str(files("edgezo"))) / "data" / PACKAGED if data == PACKAGED else Path(data)


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
