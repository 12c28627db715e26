"""Initial values in a file."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgezo_export.schemes.lora import Lora
from edgezo_export.schemes.scheme import Edit, Origin
from edgezo_export.schemes.trainable_file import write_initial
from edgezo_runtime.errors import EdgezoError
from tests.export.scheme_places import LINEAR, place

EDITS = [
    edit
    for module in ("m.1.q_proj", "m.1.a_proj")
    for edit in Lora(rank=2, targets=("q_proj", "a_proj")).edits(place(LINEAR, module=module))
]


def test_values_as_safetensors_reads_them(tmp_path):
    path, origin = tmp_path / "trainable.safetensors", Origin(None, None)
    write_initial(path, EDITS, origin)
    found = load_file(path)
    infos = [info for edit in EDITS for info in edit.tensors]
    assert list(found) == sorted(info.name for info in infos)
    for edit in EDITS:
        for info, value in zip(edit.tensors, edit.values(origin), strict=True):
            np.testing.assert_array_equal(found[info.name], value)


def test_a_value_of_another_shape_is_a_bug(tmp_path):
    wrong = Edit(EDITS[0].tensors, "output", EDITS[0].emit, lambda origin: [np.zeros(1)] * 2)
    with pytest.raises(ValueError, match=r"lora_A': \(1,\), planned \(2, 8\)"):
        write_initial(tmp_path / "f", [wrong], Origin(None, None))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(EdgezoError, match="cannot write"):
        write_initial(tmp_path / "absent" / "f", EDITS, Origin(None, None))
