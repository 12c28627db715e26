"""The counters of a snapshot, and those that make no sense."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.training.divergence import LossMonitor
from edgezo_runtime.training.state_counters import StateCounters

SEEN = LossMonitor(mean=0.5, weight=0.4, previous=0.6, seen=3, factor=0.5, returns=1)
UNSET = {"best": None, "last": None}

COUNTERS: dict[str, Any] = {
    "elapsed_s": 1.5,
    "average_weight": 0.3,
    "norm_state": [0.25, 4.0],
    "watch": dataclasses.asdict(SEEN) | UNSET,
    "good": [2, 0.1, 0.2, 3.0],
}


def test_counters_are_read_as_they_were_written() -> None:
    found = StateCounters.read(COUNTERS)
    assert (found.elapsed_s, found.average_weight) == (1.5, 0.3)
    assert found.norm_state == (0.25, 4.0)
    assert found.good == (2, 0.1, 0.2, 3.0)
    assert found.monitor() == SEEN
    assert found.monitor().best == math.inf


def test_numbers_that_are_known_are_no_infinity() -> None:
    known = COUNTERS["watch"] | {"best": 0.4, "last": 0.7, "previous": None}
    watch = StateCounters.read(COUNTERS | {"watch": known}).monitor()
    assert (watch.best, watch.last, watch.previous) == (0.4, 0.7, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elapsed_s": -1.0}, "a counter is impossible"),
        ({"elapsed_s": math.inf}, "a counter is impossible"),
        ({"average_weight": math.nan}, "a counter is impossible"),
        ({"norm_state": [0.0]}, "a counter is impossible"),
        ({"norm_state": [0.0, -1.0]}, "a counter is impossible"),
        ({"good": [1, 0.0, 0.0]}, "a counter is impossible"),
        ({"good": [2**63, 0.0, 0.0, 0.0]}, "a counter is impossible"),
        ({"watch": COUNTERS["watch"] | {"seen": -1}}, "a counter is impossible"),
        ({"watch": COUNTERS["watch"] | {"mean": math.inf}}, "a counter is impossible"),
        ({"watch": COUNTERS["watch"] | {"factor": math.nan}}, "a counter is impossible"),
        ({"watch": COUNTERS["watch"] | {"seen": "many"}}, "snapshot: "),
        ({"watch": {"further": 1}}, "snapshot: "),
        ({"further": 1}, "snapshot: "),
        ({"elapsed_s": "long"}, "snapshot: "),
    ],
)
def test_counters_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RunFileError, match=message):
        StateCounters.read(COUNTERS | change)


@pytest.mark.parametrize("name", COUNTERS)
def test_every_counter_is_needed(name: str) -> None:
    with pytest.raises(RunFileError, match=name):
        StateCounters.read({other: value for other, value in COUNTERS.items() if other != name})
