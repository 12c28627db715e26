"""The writer of .safetensors files: safetensors' own bytes."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgezo_runtime.system.safetensors_writer import write_tensors

GENERATOR = np.random.default_rng(0)
TENSORS = {
    "b": GENERATOR.normal(size=(3, 5)).astype(np.float32),
    "a": GENERATOR.normal(size=(7,)).astype(np.float32),
    "strided": np.asfortranarray(GENERATOR.normal(size=(4, 6)).astype(np.float32)),
    "step": np.array(3, np.int64),
    "half": np.ones(3, np.float16),
    "none": np.empty((0, 4), np.float32),
}


@pytest.mark.parametrize("names", [("a", "b"), tuple(TENSORS)])
def test_the_bytes_are_those_of_safetensors(tmp_path, names):
    tensors = {
        name: np.ascontiguousarray(TENSORS[name]).reshape(TENSORS[name].shape) for name in names
    }
    save_file(tensors, tmp_path / "theirs", metadata={"key": 'ä "quoted"\n'})
    write_tensors(
        tmp_path / "own", {name: TENSORS[name] for name in names}, {"key": 'ä "quoted"\n'}
    )
    assert (tmp_path / "own").read_bytes() == (tmp_path / "theirs").read_bytes()
    for name, value in load_file(tmp_path / "own").items():
        np.testing.assert_array_equal(value, TENSORS[name])
