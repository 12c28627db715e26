"""How a run stands, by its receipt and its lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from edgezo_runtime.journal.run_folder import RunFolder

State = Literal[
    "running", "done", "interrupted", "diverged", "reward-failed", "out-of-memory", "unfinished"
]
"""The status of the last session; "running" while a process tunes in the folder, and "unfinished"
where the last session left no receipt."""

_ENDED: dict[str, State] = {
    "done": "done",
    "interrupted": "interrupted",
    "diverged": "diverged",
    "reward-failed": "reward-failed",
    "out-of-memory": "out-of-memory",
}


def run_state(folder: RunFolder, receipt: Mapping[str, Any], last_step: int) -> State:
    """How a run stands.

    Args:
        folder: of the run.
        receipt: of its last session; empty if there is none.
        last_step: steps that its metrics have; more than the receipt has, if a later session was
            killed.
    """
    if folder.in_use():
        return "running"
    steps = receipt.get("steps")
    if not isinstance(steps, int) or steps < last_step:
        return "unfinished"
    return _ENDED.get(str(receipt.get("status")), "unfinished")
