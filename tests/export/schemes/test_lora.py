"""Low-rank adapters: places and initial values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_export.schemes.lora import Lora
from edgezo_export.schemes.scheme import Origin, Place
from edgezo_runtime.errors import UsageError


def test_initial_values_start_where_the_model_is():
    lora = Lora(rank=2, targets=("q_proj",), lora_train="ab")

    def values(scheme: Lora) -> list[np.ndarray]:
        (edit,) = scheme.edits(Place("linear", 0, "m.q_proj", 64, 8))
        assert all(info.trains for info in edit.tensors)
        return list(edit.values(Origin(None, None)))

    a, b = values(lora)
    assert not b.any()
    assert np.abs(a).max() <= 1 / 8
    assert a.std() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)
    assert np.array_equal(a, values(lora)[0])  # by name and seed, whatever else there is
    assert not np.array_equal(a, values(dataclasses.replace(lora, seed=1))[0])


@pytest.mark.parametrize("changes", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}])
def test_impossible_adapters(changes):
    with pytest.raises(UsageError):
        Lora(**changes)


def test_layers_that_are_not_named_stay_frozen():
    lora = Lora(targets=("q_proj",))
    assert lora.edits(Place("linear", 0, "m.k_proj", 64, 8)) == ()
    assert lora.edits(Place("norm", 0, "m.q_proj", 64, 64)) == ()


def test_the_scale_is_alpha_over_rank():
    assert Lora(rank=4).scale == 1
    assert Lora(rank=4, alpha=8.0).scale == 2
    assert Lora(rank=4, alpha=8.0).info().alpha == 8
