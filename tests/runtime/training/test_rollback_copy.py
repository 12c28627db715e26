"""The copy that a run rolls back to: its own arrays, and the same ones out of a snapshot."""

from __future__ import annotations

import numpy as np

from edgezo_runtime.training.rollback_copy import RollbackCopy, stored_copy

ARRAYS = {"a": np.arange(3, dtype=np.float32), "a#average": np.ones(3, np.float32)}
SLOTS = {"a": {"m": np.full(3, 2.0, np.float32)}, "b": None}


def copy() -> RollbackCopy:
    return RollbackCopy.of(7, ARRAYS, SLOTS, 0.5, (0.25, 4.0))


def test_a_copy_has_arrays_of_its_own() -> None:
    found = copy()
    assert not any(np.shares_memory(found.arrays[name], ARRAYS[name]) for name in ARRAYS)
    slot = found.slots["a"]
    assert slot is not None
    assert not np.shares_memory(slot["m"], SLOTS["a"]["m"])
    assert found.slots["b"] is None
    assert found.nbytes == 3 * 3 * 4
    assert found.counters == [7, 0.5, 0.25, 4.0]


def test_what_is_stored_comes_back_from_among_others() -> None:
    arrays, slots = copy().as_stored()
    assert not arrays.keys() & ARRAYS.keys()
    found_arrays, found_slots = stored_copy(ARRAYS | arrays, SLOTS | slots)
    assert found_arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(found_arrays[name], value)
    assert found_slots.keys() == SLOTS.keys()
    np.testing.assert_array_equal(found_slots["a"]["m"], SLOTS["a"]["m"])
