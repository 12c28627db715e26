"""Folders of data files: one file or many per split, and folders of Hugging Face data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.file_formats import FORMATS, PACKED_SUFFIX, suffix_of
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.typed_json import JsonShapeError, parse_object

SPLIT_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}
"""Split -> names of its files, without suffix."""

_SAVED_SPLITS = "dataset_dict.json"
_SAVED_FILES = "state.json"
_LARGEST_FILE = 1 << 20
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")

Paths = str | Path | Sequence[str | Path]
"""A file, a folder, or several of them."""


def find_split(path: str | Path, split: str) -> DataFiles | None:
    """Find the files of a split in a folder.

    Args:
        path: the folder.
        split: "train", "valid" (or "validation") or "test".

    Returns:
        The files; None if the folder has none. The rows of `Dataset.save_to_disk` are "train".

    Raises:
        UsageError: the split is unknown.
        DataError: more than one file or set of files has the name of the split, or a shard is
            missing.
    """
    split = _known(split)
    folder = Path(path)
    if (folder / _SAVED_SPLITS).is_file():
        saved = _json(folder / _SAVED_SPLITS).get("splits")
        known = saved if isinstance(saved, list) else []
        found = [_saved(folder / name) for name in SPLIT_NAMES[split] if name in known]
    elif (folder / _SAVED_FILES).is_file():
        return _saved(folder) if split == "train" else None
    else:
        found = _sets(folder, split)
    if len(found) > 1:
        names = " and ".join(str(files.path.name) for files in found)
        raise DataError(
            f"{path}: {names} could each be the {split} rows; name the file to use, or keep one"
        )
    return found[0] if found else None


def resolve(source: Paths | DataFiles, split: str | None = None) -> DataFiles:
    """Find the files to read.

    Args:
        source: a file; a folder with files per split, such as train.jsonl, validation.csv or
            test-00000-of-00002.parquet, in it or in its folder `data`; a folder of
            `save_to_disk`; or several of them, whose rows are taken together.
        split: the files of a folder; None means train. It has no effect on a single file.

    Returns:
        The files.

    Raises:
        UsageError: the split is unknown, or a path is given twice.
        DataError: there is no such file or folder, or the folder does not have the split.
    """
    if isinstance(source, DataFiles):
        return source
    if isinstance(source, str | Path):
        return _resolve(Path(source), split)
    parts = [_resolve(Path(path), split) for path in source]
    if not parts:
        raise UsageError("no data files; name one")
    files = tuple(file for part in parts for file in part.files)
    twice = next((file for n, file in enumerate(files) if file in files[:n]), None)
    if twice is not None:
        raise UsageError(f"{twice}: the file is given twice; name it once")
    return parts[0] if len(parts) == 1 else DataFiles.of(*files)


def paths_of(source: object) -> Paths | DataFiles | None:
    """Return a source of examples if it names files; None if it is something else.

    A list names files if it holds `Path` objects. Strings in a list are rows that are no rows: a
    list may come from a request to an app, whose files are none of its business.
    """
    if isinstance(source, DataFiles | str | Path):
        return source
    if not isinstance(source, list | tuple) or not source:
        return None
    return source if all(isinstance(path, Path) for path in source) else None


def _resolve(path: Path, split: str | None) -> DataFiles:
    if path.is_dir():
        split = _known("train" if split is None else split)
        found = find_split(path, split)
        if found is None and (path / _SAVED_FILES).is_file():
            found = _saved(path)
        if found is None:
            names = " or ".join(f"{name}.jsonl" for name in SPLIT_NAMES[split])
            others = ", ".join(suffix for suffix in FORMATS if suffix != ".jsonl")
            raise DataError(
                f"{path}: the folder has no {names}, nor such a file with {others}; add it, or "
                "name a file instead"
            )
        return found
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; name a file such as FILE.jsonl, or a folder of them"
        )
    if not path.is_file():
        raise DataError(f"{path}: not a file; save the rows to a .jsonl file first")
    return DataFiles.of(path)


def _known(split: str) -> str:
    split = "valid" if split == "validation" else split
    if split not in SPLIT_NAMES:
        raise UsageError(f"split '{split}': expected one of {', '.join(SPLIT_NAMES)}")
    return split


def _sets(folder: Path, split: str) -> list[DataFiles]:
    """The files of a split, by name, suffix and folder: each set could be the whole split."""
    found: dict[tuple[Path, str, bool, str], list[Path]] = {}
    for place in (folder, folder / "data"):
        for file in _files(place):
            stem = file.name[: -len(PACKED_SUFFIX)] if _is_packed(file) else file.name
            stem = stem[: len(stem) - len(suffix_of(file))]
            for name in SPLIT_NAMES[split]:
                if stem == name or stem.startswith(f"{name}-"):
                    key = (place, name, stem != name, suffix_of(file))
                    found.setdefault(key, []).append(file)
    for name in SPLIT_NAMES[split]:
        place = folder / name
        if (place / _SAVED_FILES).is_file():
            found[place, name, True, _SAVED_FILES] = list(_saved(place).files)
            continue
        for file in _files(place):
            found.setdefault((place, name, True, suffix_of(file)), []).append(file)
    order = SPLIT_NAMES[split].index
    return [_set(files) for key, files in sorted(found.items(), key=lambda one: order(one[0][1]))]


def _set(files: list[Path]) -> DataFiles:
    """Files in the order of the numbers in their names.

    Raises:
        DataError: one of them is missing.
    """
    if len(files) == 1 and not _SHARD.search(_stem(files[0])):
        return DataFiles.of(files[0])
    shards = [_SHARD.search(_stem(file)) for file in files]
    known = [(int(shard[1]), int(shard[2])) for shard in shards if shard]
    for _, total in known[:1]:
        numbers = {number for number, _ in known}
        missing = next((n for n in range(total) if n not in numbers), None)
        if missing is not None:
            raise DataError(
                f"{files[0]}: one of {total} files, and number {missing} is missing; download all"
            )
    ordered = tuple(sorted(files, key=_natural))
    if len(ordered) == 1:
        return DataFiles.of(*ordered)
    return DataFiles(ordered, ordered[0].parent / f"{ordered[0].name} to {ordered[-1].name}")


def _natural(file: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", file.name)
    ]


def _stem(file: Path) -> str:
    return file.name.partition(".")[0]


def _is_packed(file: Path) -> bool:
    return file.suffix.lower() == PACKED_SUFFIX


def _files(folder: Path) -> Iterable[Path]:
    """The data files of a folder, in the order of their names."""
    if not folder.is_dir():
        return []
    try:
        return sorted(
            file for file in folder.iterdir() if suffix_of(file) in FORMATS and file.is_file()
        )
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _saved(folder: Path) -> DataFiles:
    """The files of a folder that `Dataset.save_to_disk` has written.

    Raises:
        DataError: its state.json is not as expected.
    """
    path = folder / _SAVED_FILES
    state = _json(path)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DataError(f"{folder}: its rows are chosen by indices; save flatten_indices() instead")
    parts = state.get("_data_files")
    entries = parts if isinstance(parts, list) else []
    names = [part.get("filename") if isinstance(part, dict) else None for part in entries]
    plain = [name for name in names if isinstance(name, str) and Path(name).name == name]
    if not names or len(plain) < len(names):
        raise DataError(f'{path}: expected "_data_files" with the names of files in the folder')
    files = tuple(folder / name for name in plain)
    absent = next((file for file in files if not file.is_file()), None)
    if absent is not None:
        raise DataError(f"{absent}: no such file, but {path} names it; save the data set again")
    return DataFiles(files, folder)


def _json(path: Path) -> dict[str, Any]:
    try:
        return parse_object(read_regular(path, _LARGEST_FILE).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, JsonShapeError) as error:
        raise DataError(f"{path}: is not a JSON object: {error}") from error
