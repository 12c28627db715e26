"""Blocks as graphs: inputs, outputs, and the form that has a derivative."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graphs.block import batch_dimension, is_size, lower_block
from edgezo_export.graphs.context import Context
from edgezo_export.schemes.lora import Lora
from edgezo_export.trace.partition import Segment
from tests.export.graph_runner import run
from tests.export.tiny_models import HIDDEN

LORA = Lora(targets=("q_proj", "down_proj"))


def block(parts, index: int, quant: str = "fp32", **options):
    segment, module = parts.cut.layers[index], parts.trace.layers[index]
    own = (parts.checkpoint, Context(), LORA, quant, HIDDEN)
    return lower_block(segment, index, module, *own, **options)


@pytest.mark.slow
def test_blocks_that_differ_in_weights_only_are_one_graph(parts):
    (first, _), (second, _) = (block(parts, index) for index in range(2))
    assert first.serialize() == second.serialize()
    assert first.weights != second.weights


def test_what_a_block_takes_and_gives(parts):
    draft, edits = block(parts, 1)
    info = draft.info("graphs/block.onnx")
    names = [tensor.name for tensor in info.inputs]
    assert names[:4] == ["hidden", "code", "decode", "active"]
    assert {"past_key", "past_value", "past_lengths"} < set(names)
    assert {tensor.name for tensor in info.outputs} == {
        "hidden_out",
        "key",
        "value",
        "input.mlp.down_proj",
        "input.self_attn.o_proj",
    }
    trained = [info.name for edit in edits for info in edit.tensors]
    assert trained == [binding.tensor for binding in info.trainables]
    assert sorted(name.rpartition("layers.1.")[2] for name in trained) == [
        "mlp.down_proj.lora_A",
        "mlp.down_proj.lora_B",
        "self_attn.q_proj.lora_A",
        "self_attn.q_proj.lora_B",
    ]


def test_a_block_need_not_continue(parts):
    draft, _ = block(parts, 0, continuing=False)
    assert not any(name.startswith("past") for name in draft.inputs)


@pytest.mark.parametrize(("quant", "tolerance"), [("fp32", 1e-5), ("int8", 0.1)])
def test_the_unfused_form_computes_the_same(parts, tmp_path, quant, tolerance):
    generator = np.random.default_rng(0)
    rows, tokens = 2, 5
    one = np.ones((1, 1), np.float32)
    feed = {
        "hidden": generator.normal(0, 1, (rows, tokens, HIDDEN)).astype(np.float32),
        "active": np.ones((rows, tokens), np.float32),
        "past_lengths": np.zeros(rows, np.int32),
        "code": one,
        "decode": one,
    }
    found = []
    for unfused in (False, True):
        draft, _ = block(parts, 0, quant, unfused=unfused)
        own = {}
        for name, value in draft.inputs.items():
            shape = [dim if isinstance(dim, int) else str(dim) for dim in value.shape]
            if name.startswith("past_") and name != "past_lengths":
                own[name] = np.zeros((rows, shape[1], 0, shape[3]), np.float32)
            elif name.endswith(".rotary_cache"):
                angles = np.outer(np.arange(tokens), 0.5 ** np.arange(shape[1]))
                table = np.sin if any(other.endswith(".rotary_cache") for other in own) else np.cos
                own[name] = table(angles).astype(np.float32)
        for binding in draft.trainables:
            dims = [1, *draft.inputs[binding.input].shape[1:]]
            own[binding.input] = np.full([int(dim) for dim in dims], 0.05, np.float32)
        folder = tmp_path / str(unfused)
        folder.mkdir()
        found.append(run(draft, feed | own, parts.model, folder))
        assert ("code" in draft.inputs) is not unfused
    scale = np.abs(found[0]["hidden_out"]).max()
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=tolerance * scale, err_msg=name)


def test_a_block_without_a_start_is_refused(parts):
    segment = parts.cut.layers[0]
    own = (parts.checkpoint, Context(), LORA, "fp32", HIDDEN)
    with pytest.raises(UnsupportedModelError, match="no hidden states to start from"):
        lower_block(Segment(segment.nodes, None, segment.hidden_out), 0, "m", *own)


def traced_number(op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, num_outputs=1)
    node.outputs[0].shape = ir.Shape(())
    return node.outputs[0]


def test_sizes_are_computed_from_the_blocks_own_rows():
    ids = ir.Value(name="input_ids", shape=ir.Shape(("r", "s")))
    rows = traced_number("Squeeze", traced_number("Shape", ids, start=0, end=1))
    four = traced_number("Constant", value=ir.tensor(np.int64(4)))
    assert is_size(traced_number("Mul", rows, four))
    assert not is_size(traced_number("Mul", rows, ids))
    assert not is_size(rows)


def test_the_size_of_the_batch_is_told_from_other_numbers(parts):
    values = [value for node in parts.trace.model.graph for value in node.outputs]
    found = {batch_dimension(value) for value in values}
    assert found <= {None, 0, 1}
    assert batch_dimension(parts.cut.epilogue.hidden_out) is None
