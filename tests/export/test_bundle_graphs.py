"""The graphs of a bundle as files."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.bundle_graphs import build_graphs
from edgezo_export.schemes.bitfit import BitFit
from edgezo_export.schemes.lora import Lora
from edgezo_runtime.errors import UsageError
from tests.bundles.traces import traced as cached_trace
from tests.export.tiny_models import HIDDEN, MAX_SEQ, TINY, VOCAB


def traced(name: str):
    kind = TINY[name]
    model = kind.make()
    return cached_trace(model.config, type(model), causal=not kind.encoder, max_seq=MAX_SEQ)


@pytest.mark.slow
def test_equal_blocks_share_their_files(tmp_path):
    own = build_graphs(traced("llama"), Lora(targets=("q_proj",)), "int8", HIDDEN, VOCAB)
    stages = []
    graphs = own.save(tmp_path, lambda *told: stages.append(told))
    assert stages == [("graphs", index, 6) for index in range(6)]
    assert [graph.file for graph in graphs.blocks] == ["graphs/block_0.onnx"] * 2
    assert graphs.blocks[0].weights != graphs.blocks[1].weights
    assert graphs.logits is not None
    backward = own.save_backward(tmp_path, graphs)
    assert not isinstance(backward, str)
    assert [(info.of, info.plain) for info in backward] == [
        ("graphs/block_0.onnx", "graphs/block_0.plain.onnx"),
        ("graphs/score_labels.onnx", "graphs/score_labels.plain.onnx"),
        ("graphs/score_tokens.onnx", None),
    ]
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.onnx")}
    known = {graphs.prologue.file, graphs.blocks[0].file, graphs.logits.file}
    for info in backward:
        known |= {info.of, info.file} | ({info.plain} if info.plain else set())
    assert files == known


@pytest.mark.slow
def test_every_weight_is_planned_once_block_after_block():
    own = build_graphs(traced("llama"), Lora(targets=("q_proj",)), "int8", HIDDEN, VOCAB)
    names = [tensor.name for tensor in own.planned()]
    assert len(set(names)) == len(names)
    blocks = [name.split(".")[2] for name in names if name.startswith("model.layers.")]
    assert blocks == sorted(blocks)
    assert {info.block for info in own.trainables} == {0, 1}
    assert all(np.prod(tensor.shape) > 0 for tensor in own.planned())


@pytest.mark.slow
def test_blocks_that_cannot_continue_have_no_logits():
    scheme = Lora(targets=("query",))
    assert build_graphs(traced("roberta"), scheme, "fp32", HIDDEN, VOCAB).logits is None


@pytest.mark.slow
def test_a_scheme_that_trains_nothing_is_refused():
    class Nothing(BitFit):
        def edits(self, place):
            return ()

    with pytest.raises(UsageError, match="`trainable` bitfit: there is nothing"):
        build_graphs(traced("llama"), Nothing(), "fp32", HIDDEN, VOCAB)
