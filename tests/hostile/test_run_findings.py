"""What hostile journals, snapshots and adapters once did. Each test names it."""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.adapters.peft_writer import peft_content
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.journal import Journal, read_journal
from edgezo_runtime.journal.journal_header import JOURNAL_VERSION, JournalHeader
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader, differences
from edgezo_runtime.journal.snapshot import Snapshot, load_snapshot, save_snapshot
from edgezo_runtime.journal.step_record import StepRecord, pack_blocks, pack_count
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.system.float16_file import Float16File
from edgezo_runtime.system.framing import MAX_BODY
from edgezo_runtime.system.safetensors_writer import write_tensors
from edgezo_runtime.system.typed_json import parse_object


def _journal(path: Path, *bodies: bytes, meta: bytes = b"{}") -> Path:
    data = struct.pack("<8sII", b"\x89EZJ\r\n\x1a\n", JOURNAL_VERSION, len(meta)) + meta
    data += struct.pack("<I", zlib.crc32(data))
    for body in bodies:
        crc = zlib.crc32(body, zlib.crc32(struct.pack("<I", len(body))))
        data += struct.pack("<BII", 0xE2, len(body), crc) + body
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "meta", [b"[1]", b"3", b"not json", b"\xff", b'{"a": NaN}', b"[" * 50_000, b'{"a":1,"a":2}']
)
def test_a_journal_header_that_is_no_object(tmp_path: Path, meta: bytes) -> None:
    """A right checksum brought JSONDecodeError, TypeError or RecursionError."""
    with pytest.raises(RunFileError, match="header that is no run's"):
        read_journal(_journal(tmp_path / "j", meta=meta))


def test_a_whole_record_without_a_beginning(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no record at byte"):
        read_journal(_journal(tmp_path / "j", b"\x80"))


def _record(probes: int, rows: int, more: bytes = b"") -> bytes:
    start = struct.pack("<QQf", 0, 0, 0.1) + pack_blocks((0,))
    return start + pack_count(probes) + pack_count(rows) + more


@pytest.mark.parametrize(
    "data",
    [
        _record(2**40, 1),
        _record(2**63, 2**63),
        _record(2**63, 0),  # OverflowError in numpy
        _record(2**40, 0),  # an array of 2**40 empty rows, gone through row by row
        _record(1, 1, struct.pack("<f", float("nan"))),
        struct.pack("<QQf", 0, 0, 0.1) + pack_count(1) + pack_count(0) + pack_count(2**20),
        struct.pack("<QQf", 0, 0, 0.1) + pack_count(2**60),
        struct.pack("<QQf", 0, 0, 0.1) + b"\xff" * 9 + b"\x7f",
        struct.pack("<QQf", 0, 0, 0.1) + b"\x80\x00",
        b"",
    ],
)
def test_records_that_claim_too_much(data: bytes) -> None:
    with pytest.raises(RunFileError, match="not a step record"):
        StepRecord.unpack(data)


@pytest.mark.slow
def test_a_tail_that_looks_like_records_all_over(tmp_path: Path) -> None:
    """Every marker cost a checksum of up to 64 MiB: hours for a file of some megabytes."""
    path = _journal(tmp_path / "j")
    frame = struct.pack("<BII", 0xE2, MAX_BODY, 0) + b"\0" + struct.pack("<Q", 5)
    with path.open("ab") as file:
        file.write(b"?" + frame * 20_000)
        file.truncate(path.stat().st_size + MAX_BODY)  # a hole, no disk
    with pytest.raises(RunFileError, match="looks like records"):
        read_journal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_journal_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "j")
    with pytest.raises(RunFileError, match="not a regular file"):
        read_journal(tmp_path / "j")


def test_a_journal_that_asks_for_no_end_of_probes() -> None:
    """A million directions a step were made before the first loss was looked for."""
    config = method_config("n-spsa", num_directions=2**60)
    with pytest.raises(UsageError, match="num_directions"):
        check_config(config)
    for field_name in ("steps", "horizon", "batch_size"):
        with pytest.raises(UsageError, match=r"1000000000000 or less"):
            check_config(TuneConfig(**{field_name: 10**400}))
    with pytest.raises(UsageError, match="whole number"):
        check_config(TuneConfig(schedule="random:" + "9" * 5000))


def _snapshot(path: Path, change: Any, tensors: dict[str, Any] | None = None) -> Path:
    save_snapshot(path, Snapshot({"a": np.ones(2, np.float32)}, {}, 1, "d"))
    arrays = tensors or {"theta/a": np.ones(2, np.float32)}
    meta = {"format": "edgezo-snapshot", "version": 1, "step": 1, "digest": "d", "counters": {}}
    text = change if isinstance(change, str) else json.dumps(meta | change)
    from edgezo_runtime.journal.snapshot import _checksum

    write_tensors(path, arrays, {"edgezo": text, "crc32": _checksum(text, arrays)})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "-1 steps"),
        ({"step": "x"}, "step: expected int"),
        ({"counters": 3}, "counters: expected"),
        ({"more": 3}, "unknown key"),
        ("[" * 50_000, "is not an edgezo snapshot"),  # RecursionError
    ],
)
def test_snapshots_with_a_right_checksum(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(RunFileError, match=message):
        load_snapshot(_snapshot(tmp_path / "s", change))


@pytest.mark.parametrize(
    "tensors",
    [
        {"theta/a": np.ones(2, np.float64)},
        {"slot/a/m": np.ones(2, np.float32)},
        {"slot/a": np.ones(2, np.float32)},
        {"other/a": np.ones(2, np.float32)},
        {"theta/": np.ones(2, np.float32)},
    ],
)
def test_tensors_that_no_snapshot_has(tmp_path: Path, tensors: dict[str, Any]) -> None:
    with pytest.raises(RunFileError, match="snapshot"):
        load_snapshot(_snapshot(tmp_path / "s", {}, tensors))


def test_powers_that_no_run_reaches() -> None:
    """A square root of a negative number: ValueError."""
    theta = np.ones(2, np.float32)
    slot = Adam().init(theta) or {}
    slot["powers"][:] = 3
    with pytest.raises(RunFileError, match="cannot come from a run"):
        Adam().apply(theta, theta, slot, 0, 0.1)


def _adapter(path: Path, scheme: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    info = {
        "version": 2,
        "created_by": "edgezo",
        "model": "m",
        "architecture": "llama",
        "task": "causal-lm",
        "bundle_sha256": "0",
        "scheme": {"rank": 2, "alpha": 2.0, **scheme},
        "complete": True,
        "steps": 1,
    }
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    write_tensors(path, tensors, {"edgezo_adapter": json.dumps(info)})
    return path


@pytest.mark.parametrize(
    ("scheme", "shapes", "message"),
    [
        ({"kind": "lora", "rank": 10**400}, {"m.lora_A": (2, 3), "m.lora_B": (3, 2)}, "rank"),
        ({"kind": "lora"}, {"m.lora_A": (3, 3), "m.lora_B": (3, 2)}, "rank 3, scheme has 2"),
        ({"kind": "lora"}, {"m.lora_A_1": (2, 3), "m.lora_A": (2, 3)}, "unexpected tensor"),
        (  # B R: ValueError in the export to PEFT
            {"kind": "lora-xs"},
            {"m.lora_A": (2, 3), "m.lora_R": (2, 9), "m.lora_B": (3, 2)},
            "not square",
        ),
        ({"kind": "prompt", "tokens": [1]}, {"m.prompt_base": (1, 4)}, "without"),
        (
            {"kind": "prompt", "tokens": [1]},
            {"m.prompt": (1, 4), "n.prompt": (1, 4)},
            "prompts of 2 modules",
        ),
        ({"kind": "prompt", "tokens": [1]}, {"m.prompt": (3, 4)}, "3 virtual tokens"),
        ({"kind": "prefix", "tokens": [1]}, {"l.0.prefix_key": (1, 1, 4)}, "without"),
        (
            {"kind": "prefix", "tokens": [1]},
            {"l.x.prefix_key": (1, 1, 4), "l.x.prefix_value": (1, 1, 4)},
            "is no block",
        ),
        ({"kind": "ia3"}, {"a.gain": (2,), "a.input_gain": (2,)}, "and of its output"),
    ],
)
def test_adapters_that_broke_their_reader(
    tmp_path: Path, scheme: dict[str, Any], shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(RunFileError, match=message):
        peft_content(load_adapter(_adapter(tmp_path / "a", scheme, shapes)))


def test_an_adapter_of_numbers_that_are_not_finite(tmp_path: Path) -> None:
    path = _adapter(tmp_path / "a", {"kind": "ia3"}, {"a.gain": (2,)})
    data = path.read_bytes()
    path.write_bytes(data[:-4] + struct.pack("<f", float("nan")))
    with pytest.raises(RunFileError, match="not finite"):
        load_adapter(path)


def test_headers_of_journals_stay_as_they_were() -> None:
    """What is refused now was never written."""
    text = JournalHeader({"b": [1, 2.5, None], "a": "\u00fc"}).pack()
    assert parse_object(text[16:-4].decode("ascii")) == {"b": [1, 2.5, None], "a": "\u00fc"}


def _precious(path: Path) -> Path:
    path.write_text("precious\n" * 10)
    return path


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links are followed")
def test_files_of_a_run_that_lead_elsewhere(tmp_path: Path) -> None:
    """What they led to was overwritten: by a process number, by steps, by hidden states."""
    kept = _precious(tmp_path / "kept")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / "lock").symlink_to(kept)
    with pytest.raises(UsageError, match="lock: cannot be used for a run: it is a link"):
        run.acquire()
    run.cache.symlink_to(kept)
    with pytest.raises(OSError, match="it is a link"):
        Float16File(run.cache, np.ones(3, np.int64))
    journal = _journal(tmp_path / "journal")
    run.journal.symlink_to(journal)
    with pytest.raises(RunFileError, match="it is a link"):
        Journal.open(run.journal)
    assert kept.read_text() == "precious\n" * 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_files_of_a_run_that_are_pipes(tmp_path: Path) -> None:
    """Each was waited for."""
    run = RunFolder(tmp_path)
    for path in (run.path / "lock", run.snapshot, run.cache):
        os.mkfifo(path)
    with pytest.raises(UsageError, match="lock: cannot be used for a run: it is not a regular"):
        run.acquire()
    with pytest.raises(RunFileError, match="not a regular file"):
        load_snapshot(run.snapshot)
    with pytest.raises(OSError, match="not a regular file"):
        Float16File(run.cache, np.ones(3, np.int64))


@pytest.mark.slow
def test_a_tail_of_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cost a seek and a read, and none was counted: minutes for some megabytes."""
    path = _journal(tmp_path / "j")
    with path.open("ab") as file:
        file.write(b"\xe2" * (1 << 20))
    begun = time.process_time()
    found = read_journal(path)
    assert found.incomplete_bytes == 1 << 20
    assert time.process_time() - begun < 3
    monkeypatch.setattr("edgezo_runtime.system.framing._MAX_MARKERS", 1 << 10)
    with pytest.raises(RunFileError, match="looks like records"):
        read_journal(path)


@pytest.mark.parametrize("gap", [1, 1000, 2**20 - 5, 2**20 + 3])
def test_a_whole_record_behind_damage_is_found_across_pieces(tmp_path: Path, gap: int) -> None:
    good = b"\0" + struct.pack("<QQf", 0, 0, 0.1) + pack_blocks((0,)) + bytes(8)
    behind = pack_count(0) + struct.pack("<Q", 1) + bytes(20)
    path = _journal(tmp_path / "j", good)
    crc = zlib.crc32(behind, zlib.crc32(struct.pack("<I", len(behind))))
    with path.open("ab") as file:
        file.write(b"?" * gap + struct.pack("<BII", 0xE2, len(behind), crc) + behind)
    with pytest.raises(RunFileError, match="is damaged at byte"):
        read_journal(path)


def test_words_of_a_header_are_harmless_to_a_terminal() -> None:
    """Names of methods and keys went into the message as they were, at any length."""
    known = RunHeader(TuneConfig(), {"a": "b"}, "c", "d", 4, "all", (), Rates(0.1, 0.01)).as_json()
    odd = "\x1b[2J" + "x" * 100_000
    for changed in (
        {**known, "config": {**known["config"], "method": odd}},
        {**known, odd: 1},
        {**known, "config": {**known["config"], odd: 1}},
        {**known, "scope": odd},
    ):
        with pytest.raises(RunFileError) as caught:
            RunHeader.read(changed, Path("j"))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 800
    told = "; ".join(differences({"bundle": {odd: "1"}}, {"bundle": {}}))
    assert told.isprintable()
    assert len(told) < 300
