"""Matrices of experts, whole or in parts."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter

from edgezo_export.sources.expert_matrices import ExpertNames, expert_name

WHOLE = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)


class Tensors:
    """A checkpoint in memory."""

    def __init__(self, values: dict[str, np.ndarray]) -> None:
        self.values = values

    def shape(self, name: str) -> tuple[int, ...]:
        return self.values[name].shape

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.values[name][start:stop]


TOGETHER = {"mlp.experts.gate_up_proj": WHOLE}
APART = {
    f"mlp.experts.{number}.{name}.weight": part
    for number in range(2)
    for name, part in (("gate", WHOLE[number, :2]), ("up", WHOLE[number, 2:]))
}
MERGED = WeightConverter(
    source_patterns=["experts.*.gate.weight", "experts.*.up.weight"],
    target_patterns="experts.gate_up_proj",
    operations=[MergeModulelist(dim=0), Concatenate(dim=1)],
)


@pytest.mark.parametrize("values", [TOGETHER, APART], ids=["together", "apart"])
def test_rows_of_an_expert(values):
    names = ExpertNames([MERGED], lambda name: [name] if name in values else [])
    for number in range(2):
        name = expert_name("mlp.experts.gate_up_proj", number) + ".weight"
        found = names.find(name, Tensors(values))
        assert found is not None
        assert found.shape == (5, 3)
        np.testing.assert_array_equal(found.read_rows(1, 4), WHOLE[number, 1:4])
        np.testing.assert_array_equal(found.read_rows(0, 5), WHOLE[number])


def test_other_names_are_none_of_its_business():
    names = ExpertNames([MERGED], lambda name: [])
    assert names.find("mlp.gate.weight", Tensors({})) is None
    assert names.find("mlp.experts.gate_up_proj[0].weight", Tensors({})) is None
