"""Edits of one block: what is asked, applied and recorded."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.schemes.bitfit import BitFit
from edgezo_export.schemes.block_edits import BlockEdits, linear_ends
from edgezo_export.schemes.lora import Lora
from edgezo_export.schemes.prompt import Prompt
from edgezo_export.trace.symbols import DOMAIN

FLOAT = ir.DataType.FLOAT


def node(op_type: str) -> ir.Node:
    return ir.node(op_type, [ir.Value(name="x")], domain=DOMAIN)


def test_ends_of_attention_and_mlp():
    kinds = ("Linear", "Attention", "Linear", "RmsNorm", "Linear", "Linear")
    nodes = [node(kind) for kind in kinds]
    assert linear_ends(nodes) == {nodes[2]: "attention", nodes[5]: "mlp"}
    assert linear_ends(nodes[:3]) == {}
    assert linear_ends([nodes[0], nodes[2]]) == {}


@pytest.mark.parametrize(("scheme", "declared"), [(Lora(), True), (Prompt(), False)])
def test_the_input_active_is_declared_where_a_scheme_may_rest(scheme, declared):
    draft = GraphBuilder("block")
    BlockEdits(draft, scheme, 0, "m", ())
    assert ("active" in draft.inputs) is declared


def test_edits_of_other_stages_wait():
    draft = GraphBuilder("block")
    edits = BlockEdits(draft, BitFit(), 2, "m", ())
    y = draft.input("y", FLOAT, ("rows", "tokens", 8))
    asked = edits.norm("m.norm", 8, bias=True)
    assert edits.apply(asked, "input", y) is y
    assert edits.trainables == []
    assert edits.apply(asked, "output", y) is not y
    assert [info.name for info in edits.trainables] == ["m.norm.norm_weight", "m.norm.norm_bias"]
    assert {info.block for info in edits.trainables} == {2}
