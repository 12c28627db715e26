"""Pointers of git-lfs in place of the files of a model."""

from __future__ import annotations

import pytest

from edgezo_export.sources.model_source import open_source
from edgezo_export.sources.safetensors_folder import INDEX_FILE
from edgezo_runtime.errors import EdgezoError
from tests.export.source_models import tiny_gguf, tiny_llama

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
    ],
)
def test_a_pointer_in_a_folder(tmp_path, name):
    tiny_llama().save_pretrained(tmp_path)
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(EdgezoError, match=rf"{name}: a git-lfs pointer, .* 'git lfs pull' in "):
        open_source(str(tmp_path))


def test_a_pointer_among_the_shards(tmp_path):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    kept = shard.read_bytes()
    shard.write_text(POINTER)
    with pytest.raises(EdgezoError, match=rf"{shard.name}: a git-lfs pointer"):
        open_source(str(tmp_path))
    shard.write_bytes(kept)
    (tmp_path / INDEX_FILE).write_text(POINTER)
    with pytest.raises(EdgezoError, match=rf"{INDEX_FILE}: a git-lfs pointer"):
        open_source(str(tmp_path))


def test_a_pointer_that_nobody_reads(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    for name in ("pytorch_model.bin", "consolidated.safetensors"):
        (tmp_path / name).write_text(POINTER)
    assert open_source(str(tmp_path)).has("model.norm.weight")


def test_a_pointer_in_place_of_a_gguf_file(tmp_path):
    path = tmp_path / "x.gguf"
    tiny_gguf(path, "llama")
    assert open_source(str(path))
    path.write_text(POINTER)
    with pytest.raises(EdgezoError, match=r"x\.gguf: a git-lfs pointer"):
        open_source(str(path))
