"""Snapshots: what was saved is loaded to the bit; anything else is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.snapshot import Snapshot, load_snapshot, save_snapshot
from edgezo_runtime.methods.rules import RULES
from edgezo_runtime.system import files

NAMES = ("model.layers.0.q_proj.lora_B", "odd/name.lora_A")


def make(rule: str = "adam", step: int = 3) -> Snapshot:
    rng = np.random.default_rng(step)
    theta = {name: rng.normal(size=(5, 2)).astype(np.float32) for name in NAMES}
    slots = {name: RULES[rule]().init(tensor) for name, tensor in theta.items()}
    for name, tensor in theta.items():
        g = np.ones_like(tensor)
        slots[name] = RULES[rule]().apply(tensor, g, slots[name], 0, 0.1)
    return Snapshot(theta, slots, step, "d1", {"epoch": 2, "best": 0.25})


def bits(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "theta": {name: value.tobytes() for name, value in snapshot.theta.items()},
        "slots": {
            name: slot and {key: (value.dtype, value.tobytes()) for key, value in slot.items()}
            for name, slot in snapshot.slots.items()
        },
        "rest": (snapshot.step, snapshot.digest, snapshot.counters),
    }


@pytest.mark.parametrize("rule", RULES)
def test_what_was_saved_is_loaded(tmp_path: Path, rule: str) -> None:
    path = tmp_path / "snapshot.safetensors"
    saved = make(rule)
    save_snapshot(path, saved)
    loaded = load_snapshot(path, digest="d1")
    assert bits(loaded) == bits(saved)
    for name, theta in loaded.theta.items():  # the run goes on in these arrays
        RULES[rule]().apply(theta, np.ones_like(theta), loaded.slots[name], 1, 0.1)


def test_views_and_single_numbers_survive(tmp_path: Path) -> None:
    path = tmp_path / "s"
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    theta = {
        "t": whole.T,
        "scalar": np.array(2.5, np.float32),
        "none": np.zeros((0, 3), np.float32),
    }
    save_snapshot(path, Snapshot(theta, {}, 0, ""))
    loaded = load_snapshot(path)
    for name, value in theta.items():
        assert loaded.theta[name].shape == value.shape
        np.testing.assert_array_equal(loaded.theta[name], value)
    assert loaded.slots == {"t": None, "scalar": None, "none": None}


def test_the_layout_is_pinned(tmp_path: Path) -> None:
    """Other tools read the trainables by these names."""
    path = tmp_path / "s"
    save_snapshot(path, make())
    assert sorted(load_file(path)) == sorted(
        [f"theta/{n}" for n in NAMES]
        + [f"slot/{n}/{k}" for n in NAMES for k in ("m", "v", "powers")]
    )
    raw = path.read_bytes()
    meta = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert len(meta["crc32"]) == 8
    assert json.loads(meta["edgezo"]) == {
        "format": "edgezo-snapshot",
        "version": 1,
        "step": 3,
        "digest": "d1",
        "counters": {"epoch": 2, "best": 0.25},
    }


def test_the_old_snapshot_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    save_snapshot(path, make(step=1))

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync_descriptor", fail)
    with pytest.raises(RunFileError, match=r"cannot be written: .*No space left"):
        save_snapshot(path, make(step=2))
    assert load_snapshot(path).step == 1
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_another_run_is_refused(tmp_path: Path) -> None:
    save_snapshot(tmp_path / "s", make())
    with pytest.raises(
        RunFileError,
        match=r"belongs to another run: its digest is 'd1', that of this one 'd2'; remove",
    ):
        load_snapshot(tmp_path / "s", digest="d2")


def test_flipped_bits_and_short_files_are_found(tmp_path: Path) -> None:
    path = tmp_path / "s"
    save_snapshot(path, make())
    data = path.read_bytes()
    for at in range(0, len(data), 5):
        damaged = bytearray(data)
        damaged[at] ^= 0x04
        path.write_bytes(damaged)
        try:
            loaded = load_snapshot(path, digest="d1")
        except RunFileError:
            continue
        assert bits(loaded) == bits(make())  # a flip in the padding of the header spares the state
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(RunFileError):
            load_snapshot(path)


def test_what_is_no_snapshot_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(RunFileError, match="cannot be read"):
        load_snapshot(path)
    save_file({"x": np.zeros(2, np.float32)}, path)
    with pytest.raises(RunFileError, match="is not an edgezo snapshot"):
        load_snapshot(path)
    newer = {"edgezo": json.dumps({"format": "edgezo-snapshot", "version": 2})}
    save_file({"x": np.zeros(2, np.float32)}, path, metadata=newer)
    with pytest.raises(RunFileError, match="has version 2, this edgezo reads 1"):
        load_snapshot(path)
    lacking = {"edgezo": json.dumps({"format": "edgezo-snapshot", "version": 1, "step": 0})}
    save_file({"x": np.zeros(2, np.float32)}, path, metadata=lacking)
    with pytest.raises(RunFileError, match="is damaged: digest: missing"):
        load_snapshot(path)


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    path, theta = tmp_path / "s", {"w": np.zeros(2, np.float32)}
    with pytest.raises(UsageError, match="'w' must be float32, not float64"):
        save_snapshot(path, Snapshot({"w": np.zeros(2)}, {}, 0, ""))  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="slots without a tensor: v"):
        save_snapshot(path, Snapshot(theta, {"v": None}, 0, ""))
    with pytest.raises(UsageError, match="not JSON"):
        save_snapshot(path, Snapshot(theta, {}, 0, "", {"loss": float("nan")}))
    assert not path.exists()
