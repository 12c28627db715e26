"""The experts of a trace against those of transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import GptOssConfig, MixtralConfig
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from edgezo_export.trace.experts import EXPERTS, expert_symbols

SIZES = {"hidden_size": 8, "intermediate_size": 6, "num_local_experts": 3}


def product(name, inputs, attributes, shape, dtype):
    """What the symbol stands for."""
    x, index, weight = inputs
    assert name == "ExpertLinear"
    chosen = weight[index] if attributes["in_out"] else weight[index].transpose(-1, -2)
    rows = x[:, None] if x.ndim == 2 else x
    found = (rows.unsqueeze(-2) @ chosen).squeeze(-2)
    assert (found.shape, found.dtype) == (torch.Size(shape), dtype)
    return found


@pytest.mark.parametrize(
    ("kind", "config"), [(MixtralExperts, MixtralConfig), (GptOssExperts, GptOssConfig)]
)
def test_products_gate_and_weights(kind, config):
    torch.manual_seed(0)
    experts = kind(config(**SIZES))
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    x, index = torch.randn(5, 8), torch.tensor([[0, 2], [1, 0], [2, 1], [0, 1], [1, 2]])
    weights = torch.rand(5, 2)
    experts.config._experts_implementation = "eager"
    with torch.no_grad():
        expected = experts(x, index, weights)
        with expert_symbols(product):
            experts.config._experts_implementation = EXPERTS
            found = experts(x, index, weights)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
