"""Manifests: which are accepted, and that all others are refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.manifest import Manifest, check, copy_bytes
from edgezo_runtime.bundle.manifest_types import FileInfo, GpuGraphs, TensorInfo
from edgezo_runtime.errors import BundleError
from tests.runtime.bundle.manifest_edits import FORWARD, backward, drop, edit, put
from tests.runtime.tiny_bundle import FILES, make_manifest


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
        "group_size",
        "gpu",
    ]
    del content["files"]["trainable.safetensors"]  # its bytes are safetensors' business
    canonical = json.dumps(content, sort_keys=True).encode()
    assert hashlib.sha256(canonical).hexdigest() == GOLDEN_SHA256


GOLDEN_SHA256 = "b57ca53852f290f3d1820ea4e60d0b7cf267782c839a00f9d610cfe2a03e9af0"


@pytest.mark.parametrize("version", [0, 1, 8, 99, "3", None, True, 3.0])
def test_version_is_checked_before_anything_else(root, version):
    def change(content):
        content["version"] = version
        content["model"] = "of a later time"

    edit(root, change)
    (root / "weights.safetensors").unlink()
    with pytest.raises(
        BundleError, match=r"version .*reads versions 2 to 7.*'edgezo export --force'"
    ):
        Bundle.open(root)


def test_a_newer_version_says_who_wrote_it(root):
    edit(root, lambda content: content.update(version=8, created_by="edgezo 7.1"))
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


def test_version_4_is_read(root):
    """Its models had one set of rotary frequencies each."""

    def change(content):
        content["version"] = 4
        del content["model"]["rotary_switch"]

    expected = Bundle.open(root).manifest
    edit(root, change)
    assert Bundle.open(root).manifest == expected
    assert expected.model.rotary_switch is None


def test_version_5_is_read(root):
    """Its weights were int8 or float32."""

    def change(content):
        content["version"] = 5
        del content["group_size"]

    expected = Bundle.open(root).manifest
    edit(root, change)
    assert Bundle.open(root).manifest == expected
    assert expected.group_size is None


def test_version_6_is_read(root):
    """It had no kept codes and no graphs for GPUs."""

    def change(content):
        content["version"] = 6
        del content["gpu"]

    expected = Bundle.open(root).manifest
    edit(root, change)
    assert Bundle.open(root).manifest == expected
    assert expected.gpu == "the edgezo that exported the bundle made none"


def test_graphs_for_gpus_are_checked(root):
    manifest = Bundle.open(root).manifest
    prologue, blocks = manifest.graphs.prologue, manifest.graphs.blocks
    states = TensorInfo("states", "float32", ("rows", "tokens", 8))
    rows = dataclasses.replace(prologue, inputs=(states,), trainables=(), weights=())
    check(dataclasses.replace(manifest, gpu=GpuGraphs(blocks, rows)))
    for gpu, message in (
        (GpuGraphs(blocks[:1], rows), "num_blocks: 2, graphs 1"),
        (GpuGraphs(blocks, prologue), r"graphs\.rows\.inputs: unknown input"),
        (GpuGraphs((blocks[0], blocks[0]), rows), r"graphs\.blocks\[1\]: trainables differ"),
        (GpuGraphs(blocks, dataclasses.replace(rows, file="a.onnx")), "'a.onnx' is missing"),
    ):
        with pytest.raises(BundleError, match=message):
            check(dataclasses.replace(manifest, gpu=gpu))


def test_backward_graphs_for_gpus_are_checked(root):
    """A bundle from before them opens, too: the test above has none."""
    edit(root, lambda content: content.update(backward=[backward(of) for of in FORWARD]))
    manifest = Bundle.open(root).manifest
    prologue, blocks = manifest.graphs.prologue, manifest.graphs.blocks
    states = TensorInfo("states", "float32", ("rows", "tokens", 8))
    sides = tuple(dataclasses.replace(states, name=name) for name in ("left", "right"))
    plain = dataclasses.replace(prologue, trainables=(), weights=())
    rows = dataclasses.replace(plain, inputs=(states,))
    total = dataclasses.replace(plain, inputs=sides)
    check(dataclasses.replace(manifest, gpu=GpuGraphs(blocks, rows, total, manifest.backward)))
    moved = dataclasses.replace(manifest.backward[0], file="a.onnx")
    for own, derived, message in (
        (total, manifest.backward[1:], r"gpu\.backward: none for 'graphs/block_000"),
        (total, (moved, *manifest.backward[1:]), "'a.onnx' is missing"),
        (rows, manifest.backward, r"graphs\.sum\.inputs: unknown input"),
    ):
        with pytest.raises(BundleError, match=message):
            check(dataclasses.replace(manifest, gpu=GpuGraphs(blocks, rows, own, derived)))


@pytest.mark.parametrize("size", [0, -32, 1.5, "32", 2**40])
def test_groups_that_make_no_sense(root, size):
    edit(root, lambda content: content.update(group_size=size))
    with pytest.raises(BundleError, match="group_size"):
        Bundle.open(root)


@pytest.mark.parametrize("switch", [0, -4, 1.5, "16"])
def test_a_switch_that_makes_no_sense(root, switch):
    edit(root, lambda content: content["model"].update(rotary_switch=switch))
    with pytest.raises(BundleError, match="rotary_switch"):
        Bundle.open(root)


@pytest.mark.parametrize("found", [None, "other", 5])
def test_another_format(root, found):
    edit(root, lambda content: content.update(format=found))
    with pytest.raises(BundleError, match='format: expected "edgezo-bundle"'):
        Bundle.open(root)


def test_backward_graphs_are_read(root):
    edit(root, lambda content: content.update(backward=[backward(of) for of in FORWARD]))
    infos = Bundle.open(root).manifest.backward
    assert [info.of for info in infos] == FORWARD


def test_a_bundle_from_before_backward_graphs_opens(root):
    edit(root, lambda content: content.pop("backward"))
    assert "made none" in Bundle.open(root).manifest.backward


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


@pytest.mark.slow
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


def test_the_largest_block_counts_as_a_copy():
    manifest = Manifest.from_json(GOOD)
    trains = [4 * 6 * 2 for info in manifest.trainables if info.block == 0 and info.trains]
    assert copy_bytes(manifest) == sum(trains) == 48
    more = dataclasses.replace(manifest.trainables[0], name="more", block=1, trains=True)
    grown = dataclasses.replace(manifest, trainables=(*manifest.trainables, more))
    assert copy_bytes(grown) == 48 + 4 * 2 * 8
