from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.tiny_tokenizer import byte_tokenizer


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two blocks that spells, exported."""
    transformers = pytest.importorskip("transformers")
    from edgezo_export.export import export_bundle

    folder = tmp_path_factory.mktemp("tiny")
    core = byte_tokenizer().core
    config = transformers.LlamaConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder / "model")
    export_bundle(str(folder / "model"), folder / "bundle")
    return folder / "bundle"
