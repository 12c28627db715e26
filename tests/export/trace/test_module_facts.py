"""Facts about tiny models."""

from __future__ import annotations

import pytest
import torch

from edgezo_export.trace.module_facts import (
    buffer_values,
    repeated_layers,
    tied_parameters,
    token_embedding,
)
from tests.export.tiny_models import TINY


@pytest.mark.parametrize("name", ["llama", "gpt2", "roberta"])
def test_layers_are_the_longest_list_of_equal_modules(name):
    kind = TINY[name]
    assert repeated_layers(kind.make()) == [f"{kind.layers}.{index}" for index in range(2)]


def test_tied_parameters_have_one_owner():
    assert tied_parameters(TINY["llama"].make()) == {}
    tied = tied_parameters(TINY["llama-tied"].make())
    assert tied == {"lm_head.weight": "model.embed_tokens.weight"}


def test_the_embedding_is_found_by_what_it_is():
    assert token_embedding(TINY["llama"].make()) == "model.embed_tokens.weight"
    assert token_embedding(TINY["gpt2"].make()) == "transformer.wte.weight"


def test_buffers_are_computed_without_parameters():
    model = TINY["llama"].make()
    found = buffer_values(model.config, type(model))
    expected = dict(model.named_buffers())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
