"""Journals that tests write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgezo_runtime.journal.journal import Journal
from edgezo_runtime.journal.journal_header import JournalHeader
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.journal.sync_policy import SyncPolicy

META = {"bundle": "b" * 64, "config": {"lr": 0.5, "method": "mezo"}, "seed": 0}


def make_record(step: int, rows: int = 1) -> StepRecord:
    losses = np.arange(2 * rows, dtype=np.float32).reshape(2, rows) / 8 + step
    return StepRecord(step, 2**63 + step, 1e-3, (24, 25, 26, 27, 28, 29), losses)


def write(path: Path, count: int, sync: SyncPolicy | None = None) -> list[StepRecord]:
    records = [make_record(step) for step in range(count)]
    with Journal.create(path, META, sync) as journal:
        for record in records:
            journal.append(record)
    return records


def record_ends(path: Path) -> list[int]:
    """Offsets at which a journal may end without an incomplete record."""
    start = len(JournalHeader(META).pack())
    size = 9 + 1 + len(make_record(0).pack())
    return list(range(start, path.stat().st_size + 1, size))
