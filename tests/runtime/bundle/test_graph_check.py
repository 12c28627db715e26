"""Graphs and paths of a manifest: one that cannot be run or read is refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.graph_check import (
    check_fed,
    check_graph,
    check_path,
    unique,
)
from edgezo_runtime.bundle.manifest_types import Binding, GraphInfo, TensorInfo
from edgezo_runtime.errors import BundleError
from tests.runtime.bundle.manifest_edits import FORWARD, backward, edit


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


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_path_is_plain_or_refused(path):
    with pytest.raises(BundleError, match="unsafe path"):
        check_path(path)
    check_path("graphs/a-b_c.onnx")


def test_names_are_unique_and_print():
    unique(("a", "b"), "context")
    for names, message in ((("a", "b", "a"), "context: 'a' twice"), (("",), "is no name")):
        with pytest.raises(BundleError, match=message):
            unique(names, "context")


def block(*inputs, outputs=("hidden",)):
    """A graph of a block with these inputs."""
    tensors = tuple(TensorInfo(name, "float32", ("R", "S", 8)) for name in inputs)
    made = tuple(TensorInfo(name, "float32", ("R", "S", 8)) for name in outputs)
    return GraphInfo("g.onnx", tensors, made, (), ())


def test_what_a_block_is_fed():
    check_fed("blocks[0]", block("hidden", "cos"), ("cos",))
    with pytest.raises(BundleError, match=r"blocks\[0\]\.inputs: unknown input 'cos'"):
        check_fed("blocks[0]", block("hidden", "cos"), ())
    with pytest.raises(BundleError, match=r"prologue\.outputs: 'hidden' is missing"):
        check_fed("prologue", block("input_ids", outputs=("cos",)), ())


def test_a_graph_binds_its_own_inputs():
    graph = block("hidden", "w")
    check_graph("logits", graph)
    bound = dataclasses.replace(graph, weights=(Binding("absent", "t"),))
    with pytest.raises(BundleError, match=r"graphs\.logits: 'absent' is bound but not an input"):
        check_graph("logits", bound)
    past = dataclasses.replace(graph, inputs=(TensorInfo("past_key", "float32", ("R", 2, "P", 4)),))
    with pytest.raises(BundleError, match="past_key and past_value have shapes"):
        check_graph("blocks[0]", past)
