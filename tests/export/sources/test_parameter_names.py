"""Parameters in checkpoints that spell their names differently."""

from __future__ import annotations

import numpy as np
import pytest
import transformers

from edgezo_export.sources.model_source import open_source
from edgezo_export.sources.parameter_names import NameResolver
from edgezo_runtime.errors import EdgezoError
from tests.export.source_models import (
    MODELS,
    randomize,
    tiny_llama,
)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_checkpoint_of_the_base_model_without_prefix(tmp_path, kind):
    model = randomize(MODELS[kind]())
    model.base_model.save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    prefix = model.base_model_prefix
    for name, expected in model.base_model.state_dict().items():
        np.testing.assert_array_equal(source.read(f"{prefix}.{name}"), expected.numpy())
        np.testing.assert_array_equal(source.read(name), expected.numpy())


def test_names_of_old_bert_layer_norms():
    stored = {"bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.beta"}
    resolver = NameResolver(transformers.BertConfig(), stored)
    assert resolver.find("bert.embeddings.LayerNorm.weight") == "bert.embeddings.LayerNorm.gamma"
    assert resolver.find("embeddings.LayerNorm.bias") == "bert.embeddings.LayerNorm.beta"


def test_a_head_that_is_not_tied_is_not_replaced_by_the_embedding(tmp_path):
    model = tiny_llama(tie_word_embeddings=True)
    model.config.tie_word_embeddings = False
    model.base_model.save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    assert not source.has("lm_head.weight")
    with pytest.raises(EdgezoError, match=r"no tensor 'lm_head\.weight'"):
        source.read("lm_head.weight")
