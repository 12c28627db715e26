"""`edgezo replay`: the adapter and the state of a run from bundle and journal alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.edgezo.conftest import Invoke, Tiny
from tests.edgezo.test_cli_tune import tune_args

METHODS = {
    "two-point": ("--method", "zo-sgd", "--lr", "0.01", "--eps", "0.01"),
    "adam": ("--method", "zo-adam", "--lr", "0.01", "--eps", "0.01"),
    "per-example": ("--first-order", "0"),
    "first_order": ("--first-order", "1", "--blocks", "all"),
    "first-order": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_journal_alone_gives_the_adapter_and_the_state(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, method: str
) -> None:
    result = json.loads(invoke(*tune_args(tiny, "--json", *METHODS[method])).stdout)
    shutil.copy(tmp_path / "run/journal.bin", tmp_path / "alone.bin")
    args = ("replay", tiny.int8, "alone.bin", "-o", "again", "--snapshot", "state", "--json")
    found = json.loads(invoke(*args).stdout)
    assert found == {
        "adapter": "again",
        "adapter_sha256": result["adapter_sha256"],
        "snapshot": "state",
        "steps": 4,
        "kept_step": 4,
        "torn_bytes": 0,
    }
    run = tmp_path / "run"
    assert (tmp_path / "again").read_bytes() == (run / "adapter.safetensors").read_bytes()
    os.remove(run / "snapshot.safetensors")
    shutil.copy(tmp_path / "state", run / "snapshot.safetensors")
    again = json.loads(invoke("tune", "--resume", "-o", "run", "--steps", "6", "--json").stdout)
    os.remove(run / "snapshot.safetensors")
    assert again["steps"] == 6
    done = invoke("replay", tiny.int8, "run", "-o", "more", "--json")
    assert "applying steps 1/6\n" in done.stderr
    other = json.loads(done.stdout)
    assert other["adapter_sha256"] == again["adapter_sha256"]


def test_a_torn_record_is_left_out_and_told(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    invoke(*tune_args(tiny, "--first-order", "0"))
    journal = tmp_path / "run/journal.bin"
    size = journal.stat().st_size
    os.truncate(journal, size - 3)
    done = invoke("replay", tiny.int8, "run", "-o", "again", "--json")
    assert json.loads(done.stdout)["steps"] == 3
    assert "are an incomplete record, which is left out" in done.stderr
    assert journal.stat().st_size == size - 3


def test_what_cannot_be_replayed_is_refused(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    invoke(*tune_args(tiny))
    stderr = invoke("replay", tiny.fp32, "run", "-o", "again", code=1).stderr
    assert "not of the bundle" in stderr
    assert "name the bundle that was tuned" in stderr
    (tmp_path / "again").touch()
    assert "--force" in invoke("replay", tiny.int8, "run", "-o", "again", code=2).stderr
    (tmp_path / "nothing").write_bytes(b"no journal")
    refused = invoke("replay", tiny.int8, "nothing", "-o", "other", code=1)
    assert "is not an edgezo journal" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_what_is_read_is_not_written_over(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    """Adapter and snapshot in one file were a snapshot; --force made an adapter of the journal."""
    invoke(*tune_args(tiny))
    run = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    replay = ("replay", tiny.int8, "run", "--force")
    both = invoke(*replay, "-o", "x", "--snapshot", "./y/../x", code=2)
    assert "are both x" in both.stderr
    (tmp_path / "link").symlink_to(run / "journal.bin")
    os.link(run / "config.json", tmp_path / "hard")
    for place in ("run/journal.bin", "link", "hard", "run/snapshot.safetensors", "run/lock"):
        refused = invoke(*replay, "-o", place, code=2)
        assert "name another" in refused.stderr
    weights = tiny.int8 / "weights.safetensors"
    for option in (("-o", weights), ("-o", "x", "--snapshot", weights)):
        assert "name another" in invoke(*replay, *option, code=2).stderr
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert not (tmp_path / "x").exists()
    invoke(*replay, "-o", "run/adapter.safetensors", "--snapshot", "run/snapshot.safetensors")
    assert (run / "adapter.safetensors").read_bytes() == before["adapter.safetensors"]
