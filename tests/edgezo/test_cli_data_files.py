"""Data files on the command line: formats, several files, runs that resume, and refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from edgezo.cli.settings.config_file import read_config
from edgezo.cli.tune.inputs import TuneInputs
from edgezo_runtime.errors import UsageError
from tests.edgezo.conftest import Invoke, Tiny, tune_args

TASK = ("--template", "{text} w4", "--label", " w10", "--label", " w11")
SUFFIXES = ("json", "csv", "tsv", "parquet", "arrow", "jsonl.gz")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0], delimiter="," if path.suffix == ".csv" else "\t")
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".gz":
        import gzip

        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    else:
        _write_arrow(path, rows)
    return path


def _write_arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    arrow: Any = pytest.importorskip("pyarrow")
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    table = arrow.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
        return
    with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tune_and_eval(invoke: Invoke, tiny: Tiny, tmp_path: Path, suffix: str) -> None:
    """The losses and the adapter are those of the JSON Lines form."""
    folder = tmp_path / "set"
    for split in ("train", "valid"):
        write(folder / f"{split}.{suffix}", rows_of(tiny.data / f"{split}.jsonl"))
    expected = json.loads(invoke(*tune_args(tiny, "--json", "-o", "lines")).stdout)
    got = json.loads(invoke(*tune_args(tiny, "--data", folder, *TASK, "--json")).stdout)
    for name in ("loss_before", "loss_after", "accuracy_after", "adapter_sha256"):
        assert got[name] == expected[name]
    file = folder / f"valid.{suffix}"
    scores = [
        json.loads(invoke("eval", tiny.int8, "--data", path, *TASK, "--json").stdout)
        for path in (tiny.data, folder, file)
    ]
    assert scores[0]["loss"] == scores[1]["loss"] == scores[2]["loss"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"] == str(folder)


@pytest.mark.slow
def test_several_files(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    """A run with several files resumes, by its config.json and by the same command."""
    rows = rows_of(tiny.data / "train.jsonl")
    one = write(tmp_path / "a.csv", rows[:20])
    other = write(tmp_path / "b.json", rows[20:])
    args = tune_args(
        tiny, "--data", one, "--data", other, "--valid", tiny.data, *TASK, "--test", "none"
    )
    shown = json.loads(invoke(*args, "--dry-run", "--json").stdout)
    assert shown["rows"] == {"train": 40, "valid": 12}
    assert shown["config"]["data"] == [str(one), str(other)]
    invoke(*args)
    saved = tmp_path / "run" / "config.json"
    assert json.loads(saved.read_text())["data"] == [str(one), str(other)]
    assert "resuming" in invoke(*args).stderr
    assert "resuming" in invoke("tune", "--resume", "-o", "run").stderr
    swapped = [other if part == one else one if part == other else part for part in args]
    invoke(*swapped, code=1)
    files = ("--data", one, "--data", other, *TASK)
    assert invoke("plan", tiny.int8, "--budget", "8GB", *files).exit_code == 0


@pytest.mark.parametrize("name", ["config.json", "config.toml"])
def test_data_may_be_a_string_a_list_or_null(tmp_path: Path, name: str) -> None:
    """Pins the config.json of earlier versions, whose data, valid and test are strings or null."""
    file = tmp_path / name

    def read(**values: object) -> dict[str, Any]:
        toml = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        file.write_text(toml if name.endswith("toml") else json.dumps(values))
        return read_config(file, (TuneInputs,))

    assert read(data="a.jsonl") == {"data": ("a.jsonl",)}
    assert read(data=["a.jsonl", "b.csv"]) == {"data": ("a.jsonl", "b.csv")}
    if name.endswith("json"):
        assert read(data="a", valid=None, test="t") == {"data": ("a",), "valid": (), "test": ("t",)}
    with pytest.raises(UsageError, match="'data' is 3; expected a list of strings"):
        read(data=3)
    with pytest.raises(UsageError, match="'label' is \"x\"; expected a list of strings"):
        read(label="x")


@pytest.mark.slow
def test_a_run_of_an_earlier_version_resumes(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    """Its config.json has strings for files."""
    valid = tiny.data / "valid.jsonl"
    invoke(*tune_args(tiny, "--valid", valid, "--test", valid, "--steps", "2"))
    saved = tmp_path / "run" / "config.json"
    config = json.loads(saved.read_text())
    assert (config["data"], config["valid"], config["test"]) == (
        str(tiny.data),
        str(valid),
        str(valid),
    )
    saved.write_text(json.dumps({**config, "valid": None}))
    done = invoke("tune", "--resume", "-o", "run", "--steps", "3", "--json")
    assert json.loads(done.stdout)["steps"] == 3


def test_shards_of_a_folder(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    rows = rows_of(tiny.data / "train.jsonl")
    for number, part in enumerate((rows[:15], rows[15:])):
        write(tmp_path / "set" / f"train-0000{number}-of-00002.csv", part)
    write(tmp_path / "set" / "validation.tsv", rows_of(tiny.data / "valid.jsonl"))
    args = tune_args(tiny, "--data", tmp_path / "set", *TASK, "--dry-run", "--json")
    assert json.loads(invoke(*args).stdout)["rows"] == {"train": 40, "valid": 12}


def test_refused(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: rows.jsonl\nlr: 0.5\n")
    done = invoke("tune", "--config", tmp_path / "c.yaml", code=2)
    assert "YAML is not read; write the settings as TOML" in done.stderr
    (tmp_path / "p.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    done = invoke("eval", tiny.int8, "--data", tmp_path / "p.jsonl", *TASK, code=5)
    assert "a git-lfs pointer" in done.stderr
    done = invoke("eval", tiny.int8, "--data", tiny.data, "--data", tiny.data, *TASK, code=2)
    assert "given twice" in done.stderr


def test_unused_fields_are_told(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    rows = [{**row, "history": [["a", "b"]]} for row in rows_of(tiny.prompts)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = invoke("eval", tiny.int8, "--data", tmp_path / "rows.json")
    assert done.stderr.count("24 rows have a field 'history'") == 1
