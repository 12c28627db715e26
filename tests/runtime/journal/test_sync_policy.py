"""When a journal is forced to the disk."""

from __future__ import annotations

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.sync_policy import SyncPolicy


@pytest.mark.parametrize(
    ("policy", "records", "elapsed_s", "due"),
    [
        (SyncPolicy(), 1, 0.0, True),
        (SyncPolicy(every_steps=3), 2, 1e9, False),
        (SyncPolicy(every_steps=3), 3, 0.0, True),
        (SyncPolicy(every_steps=None, every_s=2.0), 10**9, 1.9, False),
        (SyncPolicy(every_steps=None, every_s=2.0), 1, 2.0, True),
        (SyncPolicy(every_steps=3, every_s=2.0), 1, 2.5, True),
        (SyncPolicy(every_steps=None), 10**9, 1e9, False),
    ],
)
def test_the_first_limit_that_is_reached_counts(
    policy: SyncPolicy, records: int, elapsed_s: float, due: bool
) -> None:
    assert policy.due(records, elapsed_s) is due


@pytest.mark.parametrize("limits", [{"every_steps": 0}, {"every_s": 0.0}, {"every_s": -1.0}])
def test_limits_are_above_zero(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"{min(limits)} must be above zero"):
        SyncPolicy(**limits)  # type: ignore[arg-type]
