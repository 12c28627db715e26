"""GGUF models that are split into several files."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from edgezo_export.sources.gguf_parts import check_parts, parts_of
from edgezo_export.sources.model_source import open_source
from edgezo_runtime.errors import EdgezoError
from tests.export.gguf_model import write_gguf
from tests.export.source_models import assert_same_tensors, tiny_llama


@pytest.fixture
def split(tmp_path):
    """A model in files of ten tensors, and the files."""
    model = tiny_llama()
    write_gguf(tmp_path / "tiny.gguf", model, "llama", split=10)
    return model, sorted(tmp_path.glob("*.gguf"))


def test_any_file_stands_for_the_model(split):
    model, files = split
    assert files[0].name == f"tiny-00001-of-0000{len(files)}.gguf"
    assert len(files) > 1
    for file in (files[0], files[-1]):
        source = open_source(str(file))
        assert_same_tensors(source, model)
        assert source.model_id == "tiny"
        assert source.gguf_tokens == 97


def test_missing_files_are_named(split):
    _, files = split
    files[1].unlink()
    with pytest.raises(EdgezoError, match=f"{files[1].name} is missing"):
        open_source(str(files[0]))
    files[0].unlink()
    with pytest.raises(EdgezoError, match=f"{files[0].name}, {files[1].name} are missing"):
        open_source(str(files[-1]))


def test_files_of_other_numbers(split):
    _, files = split
    content = files[0].read_bytes()
    files[0].write_bytes(files[1].read_bytes())
    files[1].write_bytes(content)
    with pytest.raises(EdgezoError, match=r"its metadata says part 2 of .*its name part 1"):
        open_source(str(files[0]))


def test_a_tensor_in_two_files(split):
    _, files = split
    count = len(files)
    writer = gguf.GGUFWriter(files[1], "llama")
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", count)
    first = gguf.GGUFReader(files[0]).tensors[0].name
    writer.add_tensor(str(first), np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(EdgezoError, match=f"tensor '{first}' is in"):
        open_source(str(files[0]))


def test_lost_tensors(tmp_path):
    files = [tmp_path / "a-00001-of-00001.gguf"]
    fields = [{"split.no": 0, "split.count": 1, "split.tensors.count": 12}]
    check_parts(files, fields, 12)
    with pytest.raises(EdgezoError, match="12 tensors in all files, 11 were found"):
        check_parts(files, fields, 11)


def test_names(tmp_path):
    whole = tmp_path / "model.gguf"
    assert parts_of(whole) == [whole]
    with pytest.raises(EdgezoError, match="part 3 of 2"):
        parts_of(tmp_path / "m-00003-of-00002.gguf")
    with pytest.raises(EdgezoError, match="and 1 more are missing"):
        parts_of(tmp_path / "m-00001-of-00004.gguf")
