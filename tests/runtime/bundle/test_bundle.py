"""Bundles and manifests: what is accepted, and that everything else is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from edgezo_runtime.bundle import digests
from edgezo_runtime.bundle.bundle import (
    Bundle,
    FileInfo,
    Manifest,
    describe_files,
)
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.files import sha256_file
from tests.runtime.tiny_bundle import FILES, TRAINABLES, make_manifest, write_bundle


@pytest.fixture
def root(tmp_path) -> Path:
    """A bundle on disk."""
    return write_bundle(tmp_path / "bundle")


def edit(root: Path, change) -> None:
    """Rewrite manifest.json after `change` has worked on its parsed content."""
    path = root / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


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


def test_manifest_text_is_stable(root):
    """Golden: another order or spelling of keys is another version."""
    text = (root / "manifest.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert list(content) == [
        "format",
        "version",
        "created_by",
        "model",
        "quant",
        "graphs",
        "trainables",
        "scheme",
        "context",
        "tokenizer",
        "base_config",
        "files",
        "backward",
    ]
    del content["files"]["trainable.safetensors"]  # its bytes are safetensors' business
    canonical = json.dumps(content, sort_keys=True).encode()
    assert hashlib.sha256(canonical).hexdigest() == GOLDEN_SHA256


GOLDEN_SHA256 = "e7a2cddd42a755f3560f84db3eb93463973973df445f0048c53c462eb08d89fe"


def test_digest_of_files(root):
    info = describe_files(root, ["weights.safetensors"])["weights.safetensors"]
    assert info == FileInfo(3000, hashlib.sha256(b"w" * 3000).hexdigest())


def test_progress_of_verify(root):
    seen = []
    bundle = Bundle.open(root)
    bundle.verify(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (bundle.size_bytes, bundle.size_bytes)


@pytest.mark.parametrize("version", [0, 1, 5, 99, "3", None, True, 3.0])
def test_version_is_checked_before_anything_else(root, version):
    def change(content):
        content["version"] = version
        content["model"] = "of a later time"

    edit(root, change)
    (root / "weights.safetensors").unlink()
    with pytest.raises(
        BundleError, match=r"version .*reads versions 2 to 4.*'edgezo export --force'"
    ):
        Bundle.open(root)


def test_a_newer_version_says_who_wrote_it(root):
    edit(root, lambda content: content.update(version=5, created_by="edgezo 7.1"))
    with pytest.raises(BundleError, match=r"install the edgezo that wrote it \(edgezo 7\.1\)"):
        Bundle.open(root)


def test_version_2_is_read(root):
    """It had the fields of LoRA alone."""

    def change(content):
        names = ("kind", "rank", "alpha", "targets", "train")
        content["version"] = 2
        content["scheme"] = {name: content["scheme"][name] for name in names}

    expected = Bundle.open(root).manifest
    edit(root, change)
    assert Bundle.open(root).manifest == expected


def test_version_3_is_read(root):
    """It had no logits, so it cannot generate."""

    def change(content):
        content["version"] = 3
        del content["graphs"]["logits"]

    edit(root, change)
    assert Bundle.open(root).manifest.graphs.logits is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ia3"}, "ia3 has no trainables of role lora_A"),
        ({"kind": "dora"}, r"scheme\.kind: expected"),
        ({"kind": "prompt"}, r"scheme\.tokens: prompt without virtual tokens"),
        ({"kind": "prefix", "tokens": [50]}, "id 50 with a vocabulary of 50"),
        ({"kind": "tt", "rank": None}, r"scheme\.rank: None is not above zero"),
        ({"kind": "lora-xs", "alpha": None}, r"scheme\.alpha: None"),
    ],
)
def test_schemes_that_contradict_their_trainables(root, change, message):
    edit(root, lambda content: content["scheme"].update(change))
    with pytest.raises(BundleError, match=message):
        Bundle.open(root)


@pytest.mark.parametrize("found", [None, "other", 5])
def test_another_format(root, found):
    edit(root, lambda content: content.update(format=found))
    with pytest.raises(BundleError, match='format: expected "edgezo-bundle"'):
        Bundle.open(root)


def backward(of: str, **changes: object) -> dict[str, object]:
    """An entry of the manifest's list of backward graphs."""
    hidden = {"name": "hidden", "dtype": "float32", "shape": ["R", "S", 8]}
    return {
        "file": "graphs/labels.onnx",  # any that is listed
        "of": of,
        "inputs": [hidden, hidden | {"name": "grad"}],
        "outputs": [hidden | {"name": "hidden.grad"}],
        "plain": None,
        **changes,
    }


FORWARD = [f"graphs/{name}.onnx" for name in ("block_000", "block_001", "labels", "tokens")]


def test_backward_graphs_are_read(root):
    edit(root, lambda content: content.update(backward=[backward(of) for of in FORWARD]))
    infos = Bundle.open(root).manifest.backward
    assert [info.of for info in infos] == FORWARD


def test_a_bundle_from_before_backward_graphs_opens(root):
    edit(root, lambda content: content.pop("backward"))
    assert "made none" in Bundle.open(root).manifest.backward


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "graphs/other.onnx"}, "there is no graph 'graphs/other.onnx'"),
        ({"of": FORWARD[1]}, "'graphs/block_001.onnx' twice"),
        ({"file": "graphs/other.onnx"}, "'graphs/other.onnx' is missing"),
        ({"plain": "../other.onnx"}, "unsafe path"),
        ({"outputs": []}, "no gradient of the hidden states"),
        (
            {"outputs": [{"name": "x.grad", "dtype": "float32", "shape": []}]},
            "'x.grad' is the gradient of no input",
        ),
    ],
)
def test_backward_graphs_are_checked(root, change, message):
    infos = [backward(of) for of in FORWARD]
    infos[0] |= change
    edit(root, lambda content: content.update(backward=infos))
    with pytest.raises(BundleError, match=message):
        Bundle.open(root)


def test_a_kind_of_block_without_a_backward_graph(root):
    edit(root, lambda content: content.update(backward=[backward(of) for of in FORWARD[1:]]))
    with pytest.raises(BundleError, match=r"none for 'graphs/block_000\.onnx'"):
        Bundle.open(root)


HOSTILE_PATHS = [
    "/etc/passwd",
    "../out",
    "graphs/../../out",
    "./weights.safetensors",
    "a//b",
    "a/",
    "",
    "..",
    "C:/x",
    "a\\b",
    "a\nb",
    "a\0b",
    "a\ud800b",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_paths_that_leave_the_bundle(root, path):
    def change(content):
        content["files"][path] = content["files"]["tokenizer.json"]

    edit(root, change)
    with pytest.raises(BundleError, match=r"unsafe path|surrogate"):
        Bundle.open(root)


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_graph_paths_that_leave_the_bundle(root, path):
    def change(content):
        content["graphs"]["prologue"]["file"] = path

    edit(root, change)
    with pytest.raises(BundleError, match=r"unsafe path|surrogate"):
        Bundle.open(root)


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
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="not a directory"):
        Bundle.open(tmp_path / "file")
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(BundleError):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_json(root, content):
    (root / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError):
        Bundle.open(root)


def test_a_manifest_too_large_to_be_one(root):
    with (root / "manifest.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match="cannot be read as a manifest"):
        Bundle.open(root)


def test_a_path_the_manifest_does_not_list(root):
    with pytest.raises(BundleError, match="not in the manifest"):
        Bundle.open(root).path("manifest.json")


def put(*keys_and_value):
    """A change that sets content[k0][k1]... = value."""
    *keys, last, value = keys_and_value

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def drop(*keys):
    """A change that removes content[k0][k1]..."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


HIDDEN = {"input": "hidden", "tensor": "hidden"}
IDS = {"input": "input_ids", "tensor": "input_ids"}
ABSENT = {"input": "absent", "tensor": "absent"}
BLOCK = ("graphs", "blocks", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("odd", 1), "odd: unknown key"),
        (drop("model", "id"), r"model\.id: missing"),
        (put("model", "task", "seq2seq"), r"model\.task: expected"),
        (put("model", "hidden_size", 0), r"model\.hidden_size: 0 is not above zero"),
        (put("model", "hidden_size", -8), r"model\.hidden_size"),
        (put("model", "hidden_size", "8"), r"model\.hidden_size: expected int"),
        (put("model", "num_blocks", 3), r"model\.num_blocks: 3, graphs 2"),
        (put("quant", "int3"), "quant: expected"),
        (put("scheme", "rank", 0), r"scheme\.rank"),
        (put("scheme", "alpha", 0), r"scheme\.alpha"),
        (put("scheme", "alpha", 10**400), "alpha"),
        (put("scheme", "rank", 4), "rank 2, scheme has 4"),
        (put("scheme", "train", "a"), r"scheme\.train"),
        (put("context", ["sin"]), "the prologue does not make 'sin'"),
        (put("context", ["cos", "cos"]), "'cos' twice"),
        (put("tokenizer", "pad_id", 50), "id 50 with a vocabulary of 50"),
        (put("tokenizer", "eos_ids", [-1]), "id -1"),
        (put("tokenizer", "add_bos", True), "add_bos without bos_id"),
        (put("tokenizer", "chat_template", "t.jinja"), r"'t\.jinja' is missing"),
        (put("trainables", 0, "block", 2), "block 2 does not exist"),
        (put("trainables", 0, "block", 1), "trainables differ"),
        (put("trainables", 0, "name", "x"), "trainables differ"),
        (put("trainables", 0, "name", "layers.1.q.lora_A"), "twice"),
        (put("trainables", 0, "role", "lora_C"), "role: expected"),
        (put("trainables", 0, "shape", [2]), "does not fit the role lora_A"),
        (put("trainables", 0, "shape", [2, 0]), "does not fit the role lora_A"),
        (put("trainables", 0, "shape", [2, "K"]), "expected int"),
        (put("graphs", "prologue", "trainables", [IDS]), "trainables differ"),
        (put(*BLOCK, "trainables", [ABSENT]), "'absent' is bound but not an input"),
        (put(*BLOCK, "weights", [ABSENT]), "'absent' is bound but not an input"),
        (put(*BLOCK, "weights", [HIDDEN]), "weight 'hidden' has no fixed shape"),
        (put(*BLOCK, "weights", 0, "start", -2), "starts at row -2"),
        (put(*BLOCK, "inputs", 0, "dtype", "complex64"), "unknown dtype 'complex64'"),
        (put(*BLOCK, "inputs", 0, "shape", [0]), "shape"),
        (put(*BLOCK, "inputs", 0, "shape", [None]), "expected int or str"),
        (put(*BLOCK, "inputs", 0, "name", ""), "is no name"),
        (put("files", "manifest.json", {"bytes": 1, "sha256": "0" * 64}), "cannot list itself"),
        (put("files", "tokenizer.json", "bytes", -1), "-1 bytes"),
        (put("files", "tokenizer.json", "sha256", "xyz"), "is no sha256"),
        (put("files", "tokenizer.json", "sha256", "A" * 64), "is no sha256"),
        (drop("files", "weights.safetensors"), r"'weights\.safetensors' is missing"),
        (drop("files", "trainable.safetensors"), r"'trainable\.safetensors' is missing"),
        (drop("files", "graphs/tokens.onnx"), r"'graphs/tokens\.onnx' is missing"),
    ],
)
def test_content_that_contradicts_itself(root, change, message):
    edit(root, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(root)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
GOOD = make_manifest(
    {name: FileInfo(1000, "0" * 64) for name in [*FILES, "trainable.safetensors"]}
).to_json()


@given(st.data())
def test_any_value_in_any_place_is_taken_or_refused_by_name(data):
    content = json.loads(GOOD)
    holder = content
    for _ in range(data.draw(st.integers(0, 4))):
        keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
        inner = [key for key in keys if isinstance(holder[key], (dict, list)) and holder[key]]
        if not inner:
            break
        holder = holder[data.draw(st.sampled_from(inner))]
    keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
    holder[data.draw(st.sampled_from(keys))] = data.draw(JUNK)
    refusal = ""
    try:
        Manifest.from_json(json.dumps(content))
    except BundleError as error:
        refusal = str(error)
    assert refusal == "" or refusal.startswith("manifest: ")


def test_a_wrong_manifest_is_not_written():
    manifest = Manifest.from_json(GOOD)
    model = dataclasses.replace(manifest.model, num_blocks=7)
    with pytest.raises(BundleError, match="num_blocks"):
        dataclasses.replace(manifest, model=model).to_json()
    with pytest.raises(BundleError, match="base_config cannot be written"):
        dataclasses.replace(manifest, base_config={"a": float("nan")}).to_json()


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


def test_reading_a_manifest_loads_no_array_library(root):
    code = (
        "import sys; from edgezo_runtime.bundle.bundle import Bundle; "
        f"Bundle.open({str(root)!r}, verify=True); "
        "print([m for m in ('numpy', 'safetensors', 'onnxruntime', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(sys.modules[Bundle.__module__].__file__).parents[2])},
    )
    assert done.stdout.strip() == "[]"


def settle(root):
    """Let the files be older than the clock of the disk is coarse."""
    for name in Bundle.open(root).manifest.files:
        os.utime(root / name, (1, 1))
    time.sleep(0.15)


def test_files_are_found_right_once_and_again_when_they_change(root, monkeypatch):
    settle(root)
    read = []
    monkeypatch.setattr(
        digests,
        "sha256_file",
        lambda path, tell=None: (read.append(path.name), sha256_file(path))[1],
    )
    Bundle.open(root).verify_once()
    files = len(Bundle.open(root).manifest.files)
    assert len(read) == files
    Bundle.open(root).verify_once()
    assert len(read) == files
    path = root / sorted(FILES)[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(BundleError, match="sha256"):
            Bundle.open(root).verify_once()
    Bundle.open(root, verify=False).verify_once()


def test_what_has_just_changed_is_not_believed_for_its_times(root):
    """A change within a tick of the disk's clock leaves size and times as they were."""
    path = root / sorted(FILES)[0]
    content = path.read_bytes()
    path.write_bytes(content)
    Bundle.open(root).verify_once()
    assert not [key for key in digests._VERIFIED if key[0] == path.resolve()]
