"""Cutting handmade traces."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.trace.partition import partition

LAYERS = ("h.0", "h.1")
STATES = ("rows", "tokens", 8)


class Traced:
    """A trace under construction: every node in the scope of a module."""

    def __init__(self) -> None:
        self.ids = ir.Value(
            name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["rows", "tokens"])
        )
        self.nodes: list[ir.Node] = []

    def op(self, scope: str, name: str, *inputs: ir.Value, shape=STATES) -> ir.Value:
        node = ir.node("Op", inputs)
        scopes = ["", "model", *([f"model.{scope}"] if scope else []), f"model.{scope}.inner"]
        node.metadata_props["pkg.torch.onnx.name_scopes"] = repr(scopes)
        value = node.outputs[0]
        value.name, value.dtype, value.shape = name, ir.DataType.FLOAT, ir.Shape(shape)
        self.nodes.append(node)
        return value

    def model(self, output: ir.Value) -> ir.Model:
        graph = ir.Graph([self.ids], [output], nodes=self.nodes, opset_imports={"": 21})
        return ir.Model(graph, ir_version=10)


def names(segment) -> list[str]:
    return [str(node.outputs[0].name) for node in segment.nodes]


def test_prologue_layers_epilogue_and_context():
    t = Traced()
    hidden = t.op("", "embedding", t.ids)
    rotary = t.op("", "rotary", t.ids, shape=(1, "tokens", 4))
    for index in range(2):
        mixed = t.op(f"h.{index}", f"mixed{index}", hidden, rotary)
        hidden = t.op(f"h.{index}", f"out{index}", mixed, hidden)
    cut = partition(t.model(t.op("head", "logits", t.op("norm", "normed", hidden))), LAYERS)
    assert names(cut.prologue) == ["embedding", "rotary"]
    assert [names(layer) for layer in cut.layers] == [["mixed0", "out0"], ["mixed1", "out1"]]
    assert names(cut.epilogue) == ["normed", "logits"]
    assert [str(value.name) for value in cut.context] == ["rotary"]
    assert [str(layer.hidden_in.name) for layer in cut.layers] == ["embedding", "out0"]
    assert str(cut.epilogue.hidden_in.name) == "out1"


def test_layer_ten_is_not_layer_one():
    t = Traced()
    hidden = t.op("", "embedding", t.ids)
    paths = tuple(f"h.{index}" for index in range(11))
    for path in paths:
        hidden = t.op(path, f"out {path}", hidden)
    cut = partition(t.model(t.op("head", "logits", hidden)), paths)
    assert [names(layer) for layer in cut.layers] == [[f"out {path}"] for path in paths]


def test_two_tensors_between_layers():
    t = Traced()
    hidden = t.op("", "embedding", t.ids)
    first, second = t.op("h.0", "a", hidden), t.op("h.0", "b", hidden)
    model = t.model(t.op("h.1", "out", first, second))
    with pytest.raises(UnsupportedModelError, match=r"'h\.0' passes on a, b; .* exactly one"):
        partition(model, LAYERS)


def test_a_layer_that_is_skipped_over():
    t = Traced()
    hidden = t.op("", "embedding", t.ids)
    first = t.op("h.0", "a", hidden)
    second = t.op("h.1", "b", first)
    model = t.model(t.op("head", "logits", first, second))  # reads the first layer as well
    with pytest.raises(UnsupportedModelError, match=r"'a' of layer 'h\.0' is read beyond"):
        partition(model, LAYERS)


def test_a_layer_without_nodes():
    t = Traced()
    model = t.model(t.op("h.0", "out", t.op("", "embedding", t.ids)))
    with pytest.raises(UnsupportedModelError, match=r"'h\.1' left no node"):
        partition(model, LAYERS)


def test_no_layers():
    t = Traced()
    with pytest.raises(UnsupportedModelError, match="no repeated layers"):
        partition(t.model(t.op("", "embedding", t.ids)), ())


def test_two_candidates_for_the_hidden_states():
    t = Traced()
    a, b = t.op("", "a", t.ids), t.op("", "b", t.ids)
    model = t.model(t.op("h.1", "out", t.op("h.0", "mixed", a, b)))
    with pytest.raises(UnsupportedModelError, match=r"cannot tell the hidden states.*: a, b"):
        partition(model, LAYERS)


def test_states_are_told_from_inputs_of_a_layer_by_their_width():
    t = Traced()
    hidden, own = t.op("", "embedding", t.ids), t.op("", "own", t.ids, shape=("rows", "tokens", 2))
    first = t.op("h.0", "out0", hidden, own)
    cut = partition(t.model(t.op("head", "logits", t.op("h.1", "out1", first))), LAYERS)
    assert str(cut.prologue.hidden_out.name) == "embedding"
    assert [str(value.name) for value in cut.context] == ["own"]


def test_a_model_without_a_head_ends_with_its_last_layer():
    t = Traced()
    first = t.op("h.0", "out0", t.op("", "embedding", t.ids))
    cut = partition(t.model(t.op("h.1", "out1", first)), LAYERS)
    assert cut.epilogue.nodes == ()
    assert str(cut.epilogue.hidden_out.name) == "out1"


def test_sizes_may_be_read_by_other_layers():
    t = Traced()
    hidden = t.op("", "embedding", t.ids)
    size = t.op("h.0", "size", hidden, shape=())
    first = t.op("h.0", "out0", hidden, size)
    second = t.op("h.1", "out1", first, size)
    cut = partition(t.model(t.op("head", "logits", second)), LAYERS)
    assert str(cut.layers[1].hidden_in.name) == "out0"


def test_several_vectors_per_token_are_refused():
    t = Traced()
    first = t.op("h.0", "out0", t.op("", "embedding", t.ids), shape=(2, *STATES))
    model = t.model(t.op("head", "logits", t.op("h.1", "out1", first)))
    with pytest.raises(UnsupportedModelError, match="passes one vector per token"):
        partition(model, LAYERS)
