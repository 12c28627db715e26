"""The layers that a block adds to its residual: which models have them, and their inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.graphs.residual_layer import residual_layers
from edgezo_export.trace.partition import Segment
from edgezo_runtime.bundle.manifest_types import LAYER_INPUT, LAYER_SLOPE
from tests.export.tiny_models import VOCAB

LAYERS = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "llama-bias": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),  # weights stored (in, out)
    "gemma3_text": ("self_attn.o_proj", "mlp.down_proj"),  # norms follow both layers
    "olmo2": ("self_attn.o_proj", "mlp.down_proj"),
    "roberta": (),  # a norm follows the residual
}
NORMS = {
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
}
"""The norms between these layers and the residual."""

FAST = {"llama", "roberta"}
FAMILIES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in LAYERS]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_are_there_unless_something_follows_them(exported, name):
    graphs = exported(name).bundle("fp32").manifest.graphs
    for graph in graphs.blocks:
        found = [t.name for t in graph.outputs if t.name.startswith(LAYER_INPUT)]
        assert found == [LAYER_INPUT + layer for layer in LAYERS[name]]
        slopes = [t.name for t in graph.outputs if t.name.startswith(LAYER_SLOPE)]
        assert slopes == [LAYER_SLOPE + layer for layer in LAYERS[name] if name in NORMS]


def read_in_torch(
    model: torch.nn.Module, modules: list[torch.nn.Module], ids: np.ndarray
) -> list[torch.Tensor]:
    """What modules read when the model runs, in the order in which they do."""
    taken: list[torch.Tensor] = []
    hooks = [
        own.register_forward_pre_hook(lambda _m, args: taken.append(args[0].clone()))
        for own in modules
    ]
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return taken


@pytest.mark.parametrize("layer", LAYERS["llama"])
@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_its_input_is_that_of_torch(exported, quant, layer):
    """float32 to rounding; int8 as far as the states before it are."""
    case = exported("llama")
    runner, model = case.bundle(quant), case.model
    ids = np.random.default_rng(0).integers(4, VOCAB, (3, 7))
    layers = [model.get_submodule(f"{case.kind.layers}.{index}.{layer}") for index in range(2)]
    taken = [x.numpy() for x in read_in_torch(model, layers, ids)]
    name = f"{LAYER_INPUT}{layer}"
    hidden, context = runner.prologue(ids)
    for index, expected in enumerate(taken):
        hidden = runner.block(index, hidden, context, outputs=(name,))
        tolerance = 1e-4 if quant == "fp32" else 0.1
        found = runner.extra[name]
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("name", NORMS)
def test_the_slope_is_the_diagonal_of_the_derivative_in_torch(exported, name, at):
    """What automatic differentiation says of torch's norm, but for the part along its input."""
    case = exported(name)
    runner, model = case.bundle("fp32"), case.model
    ids = np.random.default_rng(0).integers(4, VOCAB, (2, 5))
    norms = [
        model.get_submodule(f"{case.kind.layers}.{index}.{NORMS[name][at]}") for index in range(2)
    ]
    taken = read_in_torch(model, norms, ids)
    output = f"{LAYER_SLOPE}{LAYERS[name][at]}"
    hidden, context = runner.prologue(ids)
    for index, (norm, o) in enumerate(zip(norms, taken, strict=True)):
        hidden = runner.block(index, hidden, context, outputs=(output,))
        o = o[1, 3].clone()
        whole = torch.autograd.functional.jacobian(norm, o)
        width, square = len(o), float((o * o).mean())
        diagonal = torch.diagonal(whole) / (1 - o * o / (width * square))
        found = runner.extra[output][1, 3]
        expected = diagonal.numpy()
        # the epsilon of the norms is 1e-5 or less of the square
        assert np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()


def test_no_layer_without_an_addition(parts):
    """The states that a block begins with are added to nothing."""
    segment = parts.cut.layers[0]
    assert len(residual_layers(segment)) == 2
    assert segment.hidden_in is not None
    assert residual_layers(Segment((), segment.hidden_in, segment.hidden_in)) == []
