"""Every tracker: what was logged is read back from the files of its program."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgezo.trackers import wandb_run
from edgezo.trackers.mlflow_run import load
from edgezo.trackers.tracker import TRACKERS, TrackedRun, load_trackers
from edgezo.trackers.tracking import Tracking
from edgezo.trackers.values import tracked_values
from edgezo_runtime.errors import MissingExtraError, UsageError
from tests.edgezo.written_runs import eval_line, step_line

ENTRIES = [
    eval_line("before", 0, 0.9, 0.5), step_line(0), step_line(1),
    eval_line("during", 2, 0.4, 0.75), step_line(2), {"event": "keep", "step": 3},
]  # fmt: skip


def needs(name: str) -> None:
    """Skip where the library of a tracker is missing."""
    library = TRACKERS[name][1]
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def track(name: str, folder: Path, entries: list[Any] = ENTRIES, step: int = 0) -> list[str]:
    """Log entries, and return the warnings."""
    needs(name)
    warnings: list[str] = []
    run = TrackedRun(folder, "my-run", {"lr": 0.1, "label": [" a"]}, step)
    tracking = Tracking(load_trackers((name,)), run, warnings.append)
    for entry in entries:
        tracking.take(entry)
    tracking.close()
    return warnings


def expected(name: str) -> dict[int, float]:
    """Numbers of one name by step."""
    pairs = [tracked_values(entry) for entry in ENTRIES]
    return {step: values[name] for step, values in pairs if name in values}


def test_values() -> None:
    step, values = tracked_values(step_line(4, loss=None, projected_grad=math.inf))
    assert step == 5
    assert values.keys() == {
        "train/lr", "train/rows_per_s", "memory/resident_bytes", "memory/peak_bytes",
    }  # fmt: skip
    assert values["train/rows_per_s"] == 64
    found = tracked_values(eval_line("after", 3, 1.0, None, split="test", score=0.5))
    assert found == (3, {"test/loss": 1.0, "test/score": 0.5})
    assert tracked_values({"event": "pressure", "step": 1}) == (0, {})


def test_csv(tmp_path: Path) -> None:
    assert track("csv", tmp_path) == []
    with (tmp_path / "log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for name in ("train/loss", "valid/accuracy", "memory/peak_bytes"):
        found = {int(line["step"]): float(line[name]) for line in lines if line[name]}
        assert found == expected(name)
    assert all(not line["test/loss"] for line in lines)


def test_csv_goes_on_after_a_session_that_was_lost(tmp_path: Path) -> None:
    track("csv", tmp_path)
    track("csv", tmp_path, [step_line(2, loss=7.0)], step=2)
    with (tmp_path / "log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines] == ["0", "1", "2", "2", "3"]
    assert lines[-1]["train/loss"] == "7.0"


def test_a_table_that_is_no_file_stops_no_run(tmp_path: Path) -> None:
    (tmp_path / "log.csv").mkdir()
    (warning,) = track("csv", tmp_path)
    assert warning.startswith("the tracker csv failed and is left out from now on")


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Scalars of an event file, by name and step: records of length, CRC, data, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for file in folder.glob("*tfevents*"):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard(tmp_path: Path) -> None:
    assert track("tensorboard", tmp_path) == []
    found = scalars(tmp_path / "tensorboard")
    assert found.keys() >= {"train/loss", "valid/accuracy", "memory/resident_bytes"}
    for name in found:
        assert found[name] == pytest.approx(expected(name), rel=1e-6)


def test_tensorboard_loads_no_torch() -> None:
    """It took more than 200 MB of a run's budget where torch is installed."""
    needs("tensorboard")
    code = "import sys; from edgezo.trackers import tensorboard as t; t.load(); import tensorboardX"
    code += (
        "; assert 'torch' not in sys.modules; tensorboardX.SummaryWriter('x').add_scalar('a', 1.0)"
    )
    code += "; assert 'torch' not in sys.modules"
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=True)


@pytest.mark.slow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert track("mlflow", tmp_path) == []
    from mlflow import MlflowClient

    client = MlflowClient((tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("edgezo")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["lr"] == "0.1"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {own.step: own.value for own in history} == pytest.approx(expected("train/loss"))


def leveldb_records(data: bytes, start: int) -> Iterator[bytes]:
    """Records of a log in the format of LevelDB: blocks of 32 KiB, parts of CRC, size and type.

    Args:
        data: the log after the header of its file.
        start: bytes of that header, which count for the first block.
    """
    at, record = 0, b""
    while at + 7 <= len(data):
        room = 32768 - (at + start) % 32768
        if room < 7:
            at += room
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.slow
def test_wandb_stays_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert track("wandb", tmp_path) == []
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[int, float]] = {}
    end = time.monotonic() + 30
    records: list[Any] = []
    while not any(own.HasField("exit") for own in records):  # a process of wandb writes them
        assert time.monotonic() < end
        time.sleep(0.1)
        records = [Record.FromString(own) for own in leveldb_records(file.read_bytes()[7:], 7)]
    for record in records:
        items = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for name in items.keys() & {"train/loss", "valid/accuracy"}:
            found.setdefault(name, {})[items["_step"]] = items[name]
    assert found["train/loss"] == pytest.approx(expected("train/loss"))
    assert found["valid/accuracy"] == pytest.approx(expected("valid/accuracy"))


@pytest.mark.slow
def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)
    assert track("trackio", tmp_path) == []
    from trackio.sqlite_storage import SQLiteStorage

    (tmp_path / "other").mkdir()
    assert track("trackio", tmp_path / "other") == []  # of the same name
    run = TrackedRun(tmp_path, "my-run", {}, 0)
    logs = SQLiteStorage.get_logs("edgezo", f"my-run-{run.identity[:6]}")
    assert len([log for log in logs if "train/loss" in log]) == len(expected("train/loss"))
    found = {log["step"]: log["train/loss"] for log in logs if "train/loss" in log}
    assert found == pytest.approx(expected("train/loss"))


def test_a_tracker_that_fails_is_left_out(tmp_path: Path) -> None:
    class Failing:
        def log(self, step: int, values: Mapping[str, float]) -> None:
            raise ConnectionError("no network")

        def close(self) -> None:
            raise AssertionError("it was left out")

    warnings: list[str] = []
    run = TrackedRun(tmp_path, "x", {}, 0)
    tracking = Tracking({"wandb": lambda run: Failing()}, run, warnings.append)
    for entry in ENTRIES:
        tracking.take(entry)
    tracking.close()
    assert warnings == ["the tracker wandb failed and is left out from now on: no network"]


def test_what_a_tracker_prints_is_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Printing:
        def log(self, step: int, values: Mapping[str, float]) -> None:
            print("logged")

        def close(self) -> None:
            print("closed")

    def opened(run: TrackedRun) -> Printing:
        print("opened")
        return Printing()

    tracking = Tracking({"trackio": opened}, TrackedRun(tmp_path, "x", {}, 0), print)
    tracking.take(ENTRIES[1])
    tracking.close()
    assert capsys.readouterr() == ("", "opened\nlogged\nclosed\n")
    aside = io.StringIO()
    tracking = Tracking({"trackio": opened}, TrackedRun(tmp_path, "x", {}, 0), print, aside)
    tracking.close()
    assert (aside.getvalue(), capsys.readouterr()) == ("opened\nclosed\n", ("", ""))


def test_wandb_reports_no_errors_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline it looked for the server of Sentry."""
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    wandb_run.load()
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    wandb_run.load()
    assert os.environ["WANDB_ERROR_REPORTING"] == "true"


def test_names_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected one of csv, tensorboard"):
        load_trackers(("excel",))
    with pytest.raises(UsageError, match="given twice"):
        load_trackers(("csv", "csv"))
    monkeypatch.setitem(TRACKERS, "absent", ("x", "no_such_library"))  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match=r"pip install 'edgezo\[absent\]'"):
        load_trackers(("absent",))


def test_mlflow_sends_nothing_when_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the library notes what it finds in the environment at its import."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("MLFLOW_DISABLE_TELEMETRY", None)
    (tmp_path / "mlflow.py").write_text(
        "import os\nfound = os.environ.get('MLFLOW_DISABLE_TELEMETRY')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    load()
    assert sys.modules.pop("mlflow").found == "true"
