"""Changes of single weights, a few rows at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgezo_export.adapters.folds import folds
from edgezo_runtime.bundle.manifest import SchemeInfo
from edgezo_runtime.errors import UsageError
from tests.export.adapters.test_merged import LORA, adapter_of, draw


def changes(folder: Path, scheme: SchemeInfo, architecture: str = "llama", **tensors):
    named = {name.replace("__", "."): value for name, value in tensors.items()}
    adapter = adapter_of(scheme, named, folder)
    adapter = replace(adapter, info=replace(adapter.info, architecture=architecture))
    return {name: (fold, needed) for name, fold, needed in folds(adapter)}


def in_rows(fold, whole: np.ndarray) -> np.ndarray:
    """A change of a whole tensor, two rows at a time."""
    parts = [slice(start, start + 2) for start in range(0, len(whole), 2)]
    return np.concatenate([fold(whole[at], at) for at in parts])


@pytest.mark.parametrize(("architecture", "in_out"), [("llama", False), ("gpt2", True)])
def test_low_rank_products(tmp_path, architecture, in_out):
    rank = LORA.rank
    a, b = draw(rank, 8), draw(6, rank)
    made = changes(tmp_path / "a", LORA, architecture, m__q__lora_A=a, m__q__lora_B=b)
    fold, needed = made["m.q.weight"]
    change = LORA.scale * b @ a
    whole = draw(8, 6) if in_out else draw(6, 8)
    np.testing.assert_allclose(
        in_rows(fold, whole), whole + (change.T if in_out else change), atol=1e-5
    )
    assert needed
    with pytest.raises(ValueError, match="in the model"):
        fold(whole[:, :3], slice(0, 2))


def test_gains_scale_weights_and_biases(tmp_path):
    gain = draw(6)
    made = changes(tmp_path / "a", SchemeInfo("ia3", ("q",)), m__q__gain=gain)
    whole, bias = draw(6, 8), draw(6)
    np.testing.assert_allclose(in_rows(made["m.q.weight"][0], whole), whole * gain[:, None])
    np.testing.assert_allclose(in_rows(made["m.q.bias"][0], bias), bias * gain)
    assert [needed for _, needed in made.values()] == [True, False]


def test_an_adapter_that_is_no_change_of_weights(tmp_path):
    with pytest.raises(UsageError):
        changes(tmp_path / "a", SchemeInfo("tt", rank=2), m__tt_up_0=draw(1, 2, 2))
