"""Trainables that all rows share."""

from __future__ import annotations

import numpy as np

from edgezo_runtime.engine.params import SharedParams


def test_all_rows_share_one_copy_which_is_a_view() -> None:
    values = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    params = SharedParams(values)
    copies = params.copies("a", np.array([0, 4, 4]))
    assert not params.private
    assert copies.shape == (1, 2, 3)
    assert np.shares_memory(copies, values["a"])
