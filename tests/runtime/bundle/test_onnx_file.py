"""ONNX files: the graphs of bundles pass, every other one is refused."""

from __future__ import annotations

import pytest

from edgezo_runtime.bundle.onnx_file import MAX_BYTES, check_onnx
from edgezo_runtime.errors import BundleError
from tests.hostile.onnx_bytes import VALID, branch, field, graph, model, node, opset


@pytest.mark.parametrize("data", VALID)
def test_graphs_as_the_exporter_writes_them_pass(data):
    check_onnx(data, "graphs/x.onnx")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 graphs"),
        (model(graph(node("Steal", "evil.example"))), "domain 'evil.example'"),
        (model(graph(node("Add")), opset("evil.example")), "operator set of the domain"),
        (model(graph(node("Loop"))), "operator Loop repeats a graph"),
        (model(graph(node("EPContext"))), "operator EPContext names a file"),
        (model(graph(node("Add")), field(25, b"")), "functions of its own"),
        (model(graph(node("Add", "", field(6, graph())))), "with a graph of its own"),
        (b"\x08\x0a\x09\x00ORTM", "of onnxruntime's own format"),
    ],
)
def test_other_files_are_refused(data, message):
    with pytest.raises(BundleError, match=message) as caught:
        check_onnx(data, "graphs/x.onnx")
    assert str(caught.value).startswith("graphs/x.onnx: ")
    assert "run 'edgezo export --force'" in str(caught.value)


def test_a_graph_in_a_branch_is_checked_too():
    check_onnx(model(graph(branch(graph(node("Add"))))), "x")
    with pytest.raises(BundleError, match="domain 'x'"):
        check_onnx(model(graph(branch(graph(node("F", "x"))))), "x")


def test_a_file_too_large_for_a_graph():
    class Large(bytes):
        def __len__(self) -> int:
            return MAX_BYTES + 1

    with pytest.raises(BundleError, match="bytes are too many for a graph"):
        check_onnx(Large(), "x")
