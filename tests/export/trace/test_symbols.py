"""Modules are recognized by what they compute."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.gpt_oss import modeling_gpt_oss
from transformers.models.llama import modeling_llama
from transformers.models.phi3 import modeling_phi3

from edgezo_export.trace import symbols


class Scaled(torch.nn.Module):
    """An RMS norm in name only, or in fact."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8))
        self.eps = 1e-6
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * torch.nn.functional.rms_norm(x, (8,), self.weight, self.eps)


Scaled.__name__ = "ScaledRMSNorm"


@pytest.mark.parametrize(("factor", "known"), [(1.0, True), (2.0, False)])
def test_a_norm_is_told_by_its_numbers(factor, known):
    assert (symbols._symbol_for(Scaled(factor)) is not None) is known


def test_layers_with_a_symbol():
    assert symbols._symbol_for(torch.nn.Linear(2, 2)) is not None
    assert symbols._symbol_for(transformers.pytorch_utils.Conv1D(2, 2)) is not None
    assert symbols._symbol_for(torch.nn.LayerNorm(2)) is None
    assert symbols._symbol_for(type("Own", (torch.nn.Linear,), {})(2, 2)) is None


def test_the_usual_rotary_function_is_told_from_others():
    usual = modeling_llama.apply_rotary_pos_emb
    assert symbols._rotary_forms(usual) == {symbols._Form.WHOLE}
    assert not symbols._rotary_forms(lambda q, k, cos, sin: usual(q, k, sin, cos))
    assert not symbols._rotary_forms(lambda q, k: (q, k))
    assert symbols._Form.HALF in symbols._rotary_forms(modeling_gpt_oss.apply_rotary_pos_emb)
    assert symbols._Form.PART in symbols._rotary_forms(modeling_phi3.apply_rotary_pos_emb)
