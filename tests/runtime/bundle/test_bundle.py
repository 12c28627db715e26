"""Bundles on disk: what is accepted, and that everything else is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgezo_runtime.bundle.bundle import (
    Bundle,
    FileInfo,
    Manifest,
    describe_files,
)
from edgezo_runtime.errors import BundleError
from tests.runtime.bundle.manifest_edits import edit, put
from tests.runtime.tiny_bundle import FILES, TRAINABLES, write_bundle


def test_round_trip(root):
    bundle = Bundle.open(root, verify=True)
    again = Manifest.from_json(bundle.manifest.to_json())
    assert again == bundle.manifest
    assert again.base_config["nested"] == {"a": [1, 2.5, None, "ü"]}
    assert (
        bundle.size_bytes
        == sum(path.stat().st_size for path in root.rglob("*.*"))
        - (root / "manifest.json").stat().st_size
    )
    found = bundle.trainables()
    assert list(found) == list(TRAINABLES)
    for name, array in found.items():
        np.testing.assert_array_equal(array, TRAINABLES[name])
        assert array.flags.writeable
    assert bundle.path("graphs/tokens.onnx").read_bytes() == b"tokens"


def test_digest_of_files(root):
    info = describe_files(root, ["weights.safetensors"])["weights.safetensors"]
    assert info == FileInfo(3000, hashlib.sha256(b"w" * 3000).hexdigest())


def test_progress_of_verify(root):
    seen = []
    bundle = Bundle.open(root)
    bundle.verify(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (bundle.size_bytes, bundle.size_bytes)


def test_a_link_out_of_the_bundle(root, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["tokenizer.json"])
    (root / "tokenizer.json").unlink()
    (root / "tokenizer.json").symlink_to(outside)
    with pytest.raises(BundleError, match=r"link to .*outside the bundle"):
        Bundle.open(root)


def test_a_folder_that_links_out_of_the_bundle(root, tmp_path):
    (root / "graphs").rename(tmp_path / "graphs")
    (root / "graphs").symlink_to(tmp_path / "graphs")
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(root)


def test_a_link_within_the_bundle_and_a_link_to_it_are_fine(root, tmp_path):
    (root / "tokenizer.json").rename(root / "stored")
    (root / "tokenizer.json").symlink_to("stored")
    (tmp_path / "link").symlink_to(root)
    assert Bundle.open(tmp_path / "link").path("tokenizer.json").name == "stored"


def test_a_loop_of_links(root):
    (root / "tokenizer.json").unlink()
    (root / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(BundleError, match="missing or cannot be read"):
        Bundle.open(root)


def test_a_directory_in_place_of_a_file(root):
    (root / "tokenizer.json").unlink()
    (root / "tokenizer.json").mkdir()
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.open(root)


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_truncated_and_altered_files(root, name):
    path = root / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=rf"{len(content)} bytes .* {len(content) - 1} on disk"):
        Bundle.open(root)
    path.write_bytes(content[:-1] + b"\xff")
    bundle = Bundle.open(root)
    with pytest.raises(BundleError, match="sha256"):
        bundle.verify()
    with pytest.raises(BundleError, match="sha256"):
        Bundle.open(root, verify=True)
    path.unlink()
    with pytest.raises(BundleError, match="missing"):
        Bundle.open(root)
    with pytest.raises(BundleError, match="missing"):
        bundle.verify()


def test_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="does not exist; run 'edgezo export"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(BundleError):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("file", "name the folder that 'edgezo export MODEL -o BUNDLE' makes"),
        ("x.gguf", r"run 'edgezo export .*x\.gguf -o BUNDLE', and name the folder"),
        ("bundle/weights.safetensors", r"name the folder that it lies in: .*bundle$"),
    ],
)
def test_a_file_in_place_of_a_bundle(tmp_path, name, remedy):
    write_bundle(tmp_path / "bundle")
    (tmp_path / name).touch()
    with pytest.raises(BundleError, match=rf"{name} is a file; {remedy}"):
        Bundle.open(tmp_path / name)


def test_a_path_the_manifest_does_not_list(root):
    with pytest.raises(BundleError, match="not in the manifest"):
        Bundle.open(root).path("manifest.json")


def rewrite_trainables(root: Path, arrays: dict[str, np.ndarray]) -> Bundle:
    save_file(arrays, root / "trainable.safetensors")
    info = describe_files(root, ["trainable.safetensors"])["trainable.safetensors"]
    edit(root, put("files", "trainable.safetensors", dataclasses.asdict(info)))
    return Bundle.open(root)


NAME = "layers.0.q.lora_A"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (TRAINABLES | {NAME: np.zeros((8, 2), np.float32)}, r"\(2, 8\) .* float32 \(8, 2\)"),
        (TRAINABLES | {NAME: np.zeros((2, 8), np.float16)}, "float16"),
        (TRAINABLES | {"odd": np.zeros(1, np.float32)}, "'odd' is in the file only"),
        ({k: v for k, v in TRAINABLES.items() if k != NAME}, "lora_A' is in the manifest only"),
    ],
)
def test_trainables_that_differ_from_the_manifest(root, arrays, message):
    bundle = rewrite_trainables(root, arrays)
    with pytest.raises(BundleError, match=message):
        bundle.trainables()


def test_a_damaged_trainable_file(root):
    path = root / "trainable.safetensors"
    content = bytearray(path.read_bytes())
    content[0] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BundleError, match="while reading trainables"):
        Bundle.open(root).trainables()
