"""Safetensors checkpoints: damaged files are refused, rows are read without the file."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from edgezo_export.sources.model_source import open_source
from edgezo_export.sources.safetensors_folder import INDEX_FILE, SafetensorsFolder
from edgezo_runtime.errors import EdgezoError
from tests.export.source_models import (
    tiny_llama,
)


def test_a_missing_shard(tmp_path):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="20KB")
    next(tmp_path.glob("model-00002*.safetensors")).unlink()
    with pytest.raises(EdgezoError, match=r"model-00002.* is missing"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", 3])
def test_an_index_that_leaves_the_folder(tmp_path, shard):
    tiny_llama().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(EdgezoError, match="not a plain file name"):
        open_source(str(tmp_path))


def test_truncated_at_every_place(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for length in (0, 3, 8, 20, header_end - 1, header_end, header_end + 1, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(EdgezoError, match="truncated"):
            SafetensorsFolder(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{ ",
        b'{"a":{}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}',
        b'{"a":{"dtype":"F32","shape":"x","data_offsets":[0,4]}}',
        b"\xff\xfe",
    ],
)
def test_hostile_headers(tmp_path, header):
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EdgezoError, match="damaged header"):
        SafetensorsFolder(tmp_path)


def test_an_integer_tensor_is_refused(tmp_path):
    header = b'{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EdgezoError, match="'a' is I32"):
        SafetensorsFolder(tmp_path).read("a")


def test_reading_rows_of_a_large_tensor_is_cheap(tmp_path):
    rows, width = 20000, 500
    header = json.dumps(
        {"big": {"dtype": "BF16", "shape": [rows, width], "data_offsets": [0, rows * width * 2]}}
    ).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows * width * 2)
    folder = SafetensorsFolder(tmp_path)
    tracemalloc.start()
    assert folder.read_rows("big", 19000, 19100).shape == (100, width)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
