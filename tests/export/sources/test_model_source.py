"""Sources against torch's state_dict."""

from __future__ import annotations

import json

import pytest
import torch

from edgezo_export.sources.model_source import open_source
from edgezo_export.sources.safetensors_folder import INDEX_FILE
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.export.source_models import (
    MODELS,
    assert_same_tensors,
    randomize,
    tiny_llama,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [False, True])
def test_sharded_llama(tmp_path, dtype, tied):
    model = tiny_llama(tie_word_embeddings=tied).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / INDEX_FILE).is_file()
    source = open_source(str(tmp_path))
    assert_same_tensors(source, model)
    assert ("lm_head.weight" in source.tensor_names()) is not tied
    assert source.config.hidden_size == 32
    assert source.config_dict == json.loads((tmp_path / "config.json").read_text())
    assert source.model_id == str(tmp_path)


@pytest.mark.parametrize("kind", MODELS)
def test_other_families(tmp_path, kind):
    model = randomize(MODELS[kind]())
    model.save_pretrained(tmp_path)
    assert_same_tensors(open_source(str(tmp_path)), model)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no config.json"),
        ({"x.gguf": b""}, r"did you mean .*x\.gguf"),
        ({"config.json": b'{"model_type": "llama"}'}, "has neither"),
        ({"config.json": b'{"model_type": "no-such"}'}, "cannot read the config"),
        ({"config.json": b"{"}, "cannot read the config"),
        (
            {"config.json": b'{"model_type": "llama"}', "adapter_model.safetensors": b""},
            "holds an adapter",
        ),
    ],
)
def test_folders_that_are_no_models(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EdgezoError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize("model", ["/no/such/folder", "./no-such", "absent.gguf", "~/no-such-x"])
def test_paths_that_do_not_exist(model):
    with pytest.raises(UsageError, match="does not exist"):
        open_source(model)


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin", "config.json"])
def test_a_file_of_a_model_in_place_of_its_folder(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=rf"neither a folder .*; name the folder .*: {tmp_path}$"):
        open_source(str(tmp_path / name))


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "notes.md").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"neither a folder nor a \.gguf file$"):
        open_source(str(tmp_path / "notes.md"))


def test_weights_that_only_torch_reads(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(EdgezoError, match=r"but pytorch_model\.bin, which is not read; load the"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("package", ["models", "base.modules"])
def test_pooling_refuses_further_modules(tmp_path, package):
    tiny_llama().save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    assert source.pooling() == "mean"
    kinds = ["Transformer", "Pooling", "Normalize"]

    def write(*names: str) -> None:
        modules = [{"type": f"sentence_transformers.{package}.{name}"} for name in names]
        (tmp_path / "modules.json").write_text(json.dumps(modules))

    write(*kinds)
    assert source.pooling() == "mean"
    write(*kinds[:2], "Dense", kinds[2])
    with pytest.raises(UsageError, match="a module Dense, which an embedding has no place for"):
        source.pooling()


@pytest.mark.parametrize("content", ["[", "{}x", "[1]", '[{"path": ""}]', "3"])
def test_damaged_modules(tmp_path, content):
    tiny_llama().save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(EdgezoError, match=r"modules\.json: damaged"):
        open_source(str(tmp_path)).pooling()
