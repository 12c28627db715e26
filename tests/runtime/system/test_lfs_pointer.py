"""Pointers of git-lfs in place of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo_runtime.adapters.peft_reader import read_peft
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import BundleError, EdgezoError
from edgezo_runtime.system.lfs_pointer import pointer_problem
from tests.runtime.tiny_bundle import write_bundle

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    "content", ["", "version", POINTER.replace("git-lfs", "other"), "x" + POINTER, POINTER * 99]
)
def test_other_files_are_none(tmp_path, content):
    (tmp_path / "x").write_text(content)
    assert pointer_problem(tmp_path / "x") is None


def test_what_cannot_be_opened_is_none(tmp_path):
    assert pointer_problem(tmp_path) is None
    assert pointer_problem(tmp_path / "absent") is None


def test_a_pointer_says_what_to_do(tmp_path):
    (tmp_path / "x").write_text(POINTER)
    assert pointer_problem(tmp_path / "x") == (
        f"a git-lfs pointer, not the file itself, which was not downloaded; run 'git lfs pull' in "
        f"{tmp_path}"
    )


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "trainable.safetensors"])
def test_a_pointer_in_a_bundle(tmp_path, name):
    root = write_bundle(tmp_path / "bundle")
    (root / name).write_text(POINTER)
    with pytest.raises(BundleError, match=rf"{name}: a git-lfs pointer, .* run 'git lfs pull' in"):
        Bundle.open(root)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pointer_in_an_adapter(tmp_path: Path, name: str):
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}'
    )
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(EdgezoError, match=r"a git-lfs pointer, .* run 'git lfs pull' in"):
        read_peft(tmp_path)
