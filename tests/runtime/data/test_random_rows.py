"""Random rows: the layout of real ones, and the same rows every time."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.data.scope import invocation


@pytest.mark.parametrize("label_ids", [(), (3, 4, 5)])
def test_rows_are_as_long_as_wanted_and_end_alike(label_ids: tuple[int, ...]) -> None:
    rows = random_rows(7, 12, 50, label_ids)
    assert len(rows) == 7
    assert all(row.tokens.size == 12 and row.tokens.dtype == np.int32 for row in rows)
    assert all(row.tokens.min() >= 0 and row.tokens.max() < 50 for row in rows)
    assert {int(row.tokens[-1]) for row in rows} == {0}
    assert rows.max_seq == 12
    assert rows.tokens_sha256() == random_rows(7, 12, 50, label_ids).tokens_sha256()
    assert rows.tokens_sha256() != random_rows(7, 12, 49, label_ids).tokens_sha256()


def test_with_classes_the_last_token_is_scored() -> None:
    rows = random_rows(4, 6, 50, (3, 4, 5))
    assert rows.kind == "labels"
    assert [row.label for row in rows] == [0, 1, 2, 0]
    assert [row.places.tolist() for row in rows] == [[5]] * 4
    assert rows.label_tokens == ((3,), (4,), (5,))
    assert rows.num_classes == 3
    assert invocation(rows) == (0,)
    batch = make_batch(rows, range(4))
    assert batch.targets.tolist() == [3, 4, 5, 3]
    assert batch.padding == 0


def test_without_classes_all_but_the_first_token_is_scored() -> None:
    rows = random_rows(3, 6, 50)
    assert rows.kind == "completion"
    assert [row.places.tolist() for row in rows] == [[1, 2, 3, 4, 5]] * 3
    assert [row.label for row in rows] == [-1] * 3
    assert make_batch(rows, range(3)).input_ids.shape == (3, 5)
