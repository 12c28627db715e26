"""Folders: which files are a split, in every layout that people have."""

import json
from pathlib import Path

import pytest

from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.folders import SPLIT_NAMES, find_split, paths_of, resolve
from edgezo_runtime.errors import DataError, UsageError

GOOD = '{"text": "a"}\n'


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(GOOD)


def names(found: DataFiles | None, folder: Path) -> list[str]:
    assert found is not None
    return [str(file.relative_to(folder)) for file in found.files]


def test_a_file_per_split(tmp_path: Path) -> None:
    touch(tmp_path, "train.jsonl", "validation.jsonl", "README.md", "train.txt", "trainer.json")
    assert resolve(tmp_path).path == tmp_path / "train.jsonl"
    assert resolve(tmp_path, "valid") == resolve(tmp_path, "validation")
    assert resolve(tmp_path / "train.jsonl", "valid").path == tmp_path / "train.jsonl"
    assert find_split(tmp_path, "test") is None
    with pytest.raises(DataError, match=r"the folder has no test\.jsonl, nor such a file with "):
        resolve(tmp_path, "test")
    with pytest.raises(UsageError, match="split 'tset': expected one of train, valid, test"):
        resolve(tmp_path, "tset")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz"])
@pytest.mark.parametrize("name", SPLIT_NAMES["valid"])
def test_every_name_with_every_suffix(tmp_path: Path, name: str, suffix: str) -> None:
    touch(tmp_path, f"train{suffix}", f"{name}{suffix}")
    assert names(resolve(tmp_path, "valid"), tmp_path) == [f"{name}{suffix}"]
    assert names(resolve(tmp_path), tmp_path) == [f"train{suffix}"]


@pytest.mark.parametrize(
    "both",
    [
        ("valid.jsonl", "validation.jsonl"),
        ("valid.jsonl", "valid.csv"),
        ("dev.csv", "data/validation-00000-of-00001.parquet"),
        ("valid.jsonl", "valid-1.jsonl"),
        ("valid.csv", "valid/0.csv"),
    ],
)
def test_what_could_be_either(tmp_path: Path, both: tuple[str, str]) -> None:
    touch(tmp_path, *both)
    with pytest.raises(DataError, match="could each be the valid rows; name the file") as caught:
        find_split(tmp_path, "valid")
    assert all(Path(name).name in str(caught.value) for name in both)


@pytest.mark.parametrize("folder", ["", "data/"])
def test_shards(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, *(f"{folder}train-0000{n}-of-00003.parquet" for n in (2, 0, 1)))
    found = resolve(tmp_path)
    assert names(found, tmp_path) == [f"{folder}train-0000{n}-of-00003.parquet" for n in range(3)]
    assert found.path.name == "train-00000-of-00003.parquet to train-00002-of-00003.parquet"
    (tmp_path / f"{folder}train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match="one of 3 files, and number 1 is missing"):
        resolve(tmp_path)


def test_shards_without_a_total(tmp_path: Path) -> None:
    touch(tmp_path, "train-10.jsonl", "train-9.jsonl", "train-1.jsonl", "test-1.jsonl")
    assert names(resolve(tmp_path), tmp_path) == [
        "train-1.jsonl",
        "train-9.jsonl",
        "train-10.jsonl",
    ]
    assert names(resolve(tmp_path, "test"), tmp_path) == ["test-1.jsonl"]


def test_a_folder_per_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/0000.parquet", "train/0001.parquet", "validation/0000.parquet")
    assert names(resolve(tmp_path), tmp_path) == ["train/0000.parquet", "train/0001.parquet"]
    assert names(resolve(tmp_path, "valid"), tmp_path) == ["validation/0000.parquet"]


def save(folder: Path, *files: str) -> None:
    touch(folder, *files)
    state = {"_data_files": [{"filename": name} for name in files], "_fingerprint": "x"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def test_saved_data_sets(tmp_path: Path) -> None:
    save(tmp_path / "train", "data-00000-of-00002.arrow", "data-00001-of-00002.arrow")
    save(tmp_path / "dev", "data-00000-of-00001.arrow")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "dev"]}')
    shards = [f"train/data-0000{n}-of-00002.arrow" for n in (0, 1)]
    assert names(resolve(tmp_path), tmp_path) == shards
    assert names(resolve(tmp_path, "valid"), tmp_path) == ["dev/data-00000-of-00001.arrow"]
    assert find_split(tmp_path, "test") is None
    one = tmp_path / "train"  # a set without splits is like a file
    assert names(resolve(one, "valid"), tmp_path) == names(resolve(one), tmp_path) == shards
    assert find_split(one, "valid") is None
    assert resolve(one).path == one
    (tmp_path / "dataset_dict.json").unlink()
    assert names(resolve(tmp_path), tmp_path) == shards


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("[]", "is not a JSON object"),
        ("{}", 'expected "_data_files"'),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', 'expected "_data_files"'),
        ('{"_data_files": [3]}', 'expected "_data_files"'),
        ('{"_data_files": [{"filename": "x.arrow"}]}', r"x\.arrow: no such file, but"),
        ('{"_indices_files": [{"filename": "i"}]}', "flatten_indices"),
    ],
)
def test_saved_data_sets_refused(tmp_path: Path, state: str, message: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(DataError, match=message):
        resolve(tmp_path)


def test_several(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "more/train.jsonl")
    found = resolve([tmp_path / "a.jsonl", str(tmp_path / "more")])
    assert names(found, tmp_path) == ["a.jsonl", "more/train.jsonl"]
    assert resolve(found) is found
    with pytest.raises(UsageError, match="given twice"):
        resolve([tmp_path / "a.jsonl", tmp_path / "a.jsonl"])
    with pytest.raises(UsageError, match="no data files"):
        resolve([])


def test_missing_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        resolve(tmp_path / "nothing")
    with pytest.raises(DataError, match="not a file"):
        resolve("/dev/null")


def test_paths_of_a_source() -> None:
    assert paths_of("a") == "a"
    assert paths_of([Path("a"), Path("b")]) == [Path("a"), Path("b")]
    assert paths_of(["a", Path("b")]) is None  # strings may come from a stranger
    assert paths_of([{"text": "a"}]) is None
    assert paths_of([]) is None
