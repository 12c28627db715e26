"""The ledger of a device's memory."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from edgezo_runtime.devices.faults import ShortOfDeviceError
from edgezo_runtime.devices.ledger import WEIGHTS, Ledger
from edgezo_runtime.devices.uploads import put_counted


class Value:
    """A value of a device."""


def test_bytes_are_counted_until_their_value_is_gone() -> None:
    ledger = Ledger()
    array = np.zeros(100, np.float32)
    first = put_counted(array, WEIGHTS, lambda own: Value(), ledger)
    second = put_counted(array[:50], "a value", lambda own: Value(), ledger)
    assert (ledger.held_bytes, ledger.peak_bytes, ledger.passes_peak_bytes) == (600, 600, 200)
    del first
    gc.collect()
    assert ledger.held_bytes == 200
    del second
    gc.collect()
    assert (ledger.held_bytes, ledger.peak_bytes, ledger.sent_bytes) == (0, 600, 600)


def test_what_does_not_fit_is_refused_before_it_is_copied() -> None:
    ledger = Ledger()
    ledger.limit_bytes = 1000
    ledger.take(900, WEIGHTS)
    with pytest.raises(
        ShortOfDeviceError, match=r"a value would take the device to 1.10 KB of 1.00 KB"
    ):
        put_counted(np.zeros(200, np.uint8), "a value", lambda own: Value(), ledger)
    assert ledger.held_bytes == 900


def test_a_run_counts_anew() -> None:
    ledger = Ledger()
    value = Value()
    ledger.take(900, "a value")
    ledger.follow(value, 900, "a value")
    ledger.take(100, WEIGHTS)
    ledger.sent(7)
    del value
    gc.collect()
    ledger.restart(500)
    assert (ledger.limit_bytes, ledger.held_bytes, ledger.peak_bytes) == (500, 100, 100)
    assert (ledger.passes_peak_bytes, ledger.sent_bytes) == (0, 0)


def test_a_copy_that_fails_is_not_counted() -> None:
    ledger = Ledger()

    def fail(own: np.ndarray) -> Value:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        put_counted(np.zeros(8, np.uint8), "a value", fail, ledger)
    assert ledger.held_bytes == 0


def test_weights_that_came_ahead_make_room_for_values_only() -> None:
    ledger = Ledger()
    ledger.limit_bytes = 1000
    ledger.take(900, WEIGHTS)
    ledger.make_room = lambda: ledger.give(900, WEIGHTS)
    with pytest.raises(ShortOfDeviceError):
        ledger.take(200, WEIGHTS)
    assert ledger.held_bytes == 900
    ledger.take(200, "a result")
    assert ledger.held_bytes == 200
