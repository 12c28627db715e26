"""The layer that a block adds to its residual: which models have one, and its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.graphs.residual_layer import residual_layer
from edgezo_export.trace.partition import Segment
from edgezo_runtime.bundle.manifest_types import LAYER_INPUT
from tests.export.tiny_models import VOCAB

LAST = {
    "llama": "mlp.down_proj",
    "llama-bias": "mlp.down_proj",
    "gpt2": "mlp.c_proj",  # weights stored (in, out)
    "gemma3_text": "",  # a norm follows the last layer
    "roberta": "",  # a norm follows the residual
}
FAST = {"llama", "roberta"}
FAMILIES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in LAST]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layer_is_there_unless_something_follows_it(exported, name):
    graphs = exported(name).bundle("fp32").manifest.graphs
    for graph in graphs.blocks:
        found = [t for t in graph.outputs if t.name.startswith(LAYER_INPUT)]
        assert [tensor.name for tensor in found] == (
            [LAYER_INPUT + LAST[name]] if LAST[name] else []
        )


@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_its_input_is_that_of_torch(exported, quant):
    """float32 to rounding; int8 as far as the states before it are."""
    case = exported("llama")
    runner, model = case.bundle(quant), case.model
    ids = np.random.default_rng(0).integers(4, VOCAB, (3, 7))
    taken: list[np.ndarray] = []
    layers = [
        model.get_submodule(f"{case.kind.layers}.{index}.mlp.down_proj") for index in range(2)
    ]
    hooks = [
        layer.register_forward_pre_hook(lambda _m, args: taken.append(args[0].numpy().copy()))
        for layer in layers
    ]
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor(ids))
    finally:
        for hook in hooks:
            hook.remove()
    name = f"{LAYER_INPUT}mlp.down_proj"
    hidden, context = runner.prologue(ids)
    for index, expected in enumerate(taken):
        hidden = runner.block(index, hidden, context, outputs=(name,))
        tolerance = 1e-4 if quant == "fp32" else 0.1
        found = runner.extra[name]
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_no_layer_without_an_addition(parts):
    """The states that a block begins with are added to nothing."""
    segment = parts.cut.layers[0]
    assert residual_layer(segment) is not None
    assert segment.hidden_in is not None
    assert residual_layer(Segment((), None, segment.hidden_in)) is None
