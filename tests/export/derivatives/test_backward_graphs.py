"""Backward graphs: what they take and give, and gradients of scorers against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.derivatives.backward_graphs import Backward
from edgezo_export.graphs.block import lower_block
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.context import Context
from edgezo_export.schemes.lora import Lora
from edgezo_export.trace.canonical import canonicalize
from edgezo_export.trace.partition import partition
from edgezo_runtime.bundle.manifest_types import GRAD, grad_name
from tests.bundles.traces import traced
from tests.export.graph_runner import run
from tests.export.tiny_models import HIDDEN, MAX_SEQ, TINY, VOCAB


@pytest.fixture(scope="module")
def made():
    """A tiny llama and the maker of its backward graphs."""
    model = TINY["llama"].build()
    trace = traced(model.config, type(model), causal=True, max_seq=MAX_SEQ)
    canonicalize(trace.model)
    cut = partition(trace.model, trace.layers)
    checkpoint = Checkpoint(trace.tied, trace.buffers, VOCAB)
    context = Context()
    scheme = Lora(targets=("q_proj",))
    layers = list(zip(cut.layers, trace.layers, strict=True))
    for index, (segment, module) in enumerate(layers):
        lower_block(segment, index, module, checkpoint, context, scheme, "fp32", HIDDEN)
    own = Backward(layers, cut.epilogue, checkpoint, context, scheme, "fp32", HIDDEN)
    return model, own


@pytest.mark.slow
def test_a_block_gives_gradients_of_what_trains(made):
    _, backward = made
    info = backward.block(1).info("graphs/block_0.backward.onnx")
    assert info.inputs[-1].name == GRAD
    assert [tensor.name for tensor in info.outputs] == [
        grad_name("hidden"),
        grad_name("self_attn.q_proj.lora_B"),  # A is frozen
    ]
    forward = backward.unfused_block(1).info("graphs/block_0.plain.onnx")
    assert [tensor.name for tensor in info.inputs[:-1]] == [t.name for t in forward.inputs]


POSITIONS = np.array([[0, 4], [1, 0], [1, 2]])
STATES = np.random.default_rng(0).normal(0, 1, (2, 5, HIDDEN)).astype(np.float32)


def torch_gradient(model, loss) -> np.ndarray:
    """Gradient at the hidden states of what `loss` makes of the logits at the positions."""
    hidden = torch.tensor(STATES, requires_grad=True)
    picked = hidden[POSITIONS[:, 0], POSITIONS[:, 1]]
    loss(model.lm_head(model.model.norm(picked))).backward()
    return hidden.grad.numpy()


def test_gradient_of_label_scores(made, tmp_path):
    model, backward = made
    labels = np.array([7, 9])
    seed = np.random.default_rng(1).normal(0, 1, (3, 2)).astype(np.float32)
    feed = {"hidden": STATES, "positions": POSITIONS, "label_ids": labels, GRAD: seed}
    found = run(backward.label_scorer(), feed, model, tmp_path)[grad_name("hidden")]
    expected = torch_gradient(model, lambda x: (x[:, labels] * torch.tensor(seed)).sum())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradient_of_log_probs(made, tmp_path):
    model, backward = made
    targets = np.array([0, 50, 96])
    seed = np.random.default_rng(1).normal(0, 1, 3).astype(np.float32)
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(torch.tensor(STATES)))
    known = torch.log_softmax(logits, -1)[POSITIONS[:, 0], POSITIONS[:, 1], targets].numpy()
    feed = {"hidden": STATES, "positions": POSITIONS, "targets": targets}
    feed |= {"log_probs": known, GRAD: seed}
    found = run(backward.token_scorer(), feed, model, tmp_path)[grad_name("hidden")]
    expected = torch_gradient(
        model,
        lambda x: (torch.log_softmax(x, -1)[np.arange(3), targets] * torch.tensor(seed)).sum(),
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_unfused_label_scorer_scores(made, tmp_path):
    model, backward = made
    labels = np.array([7, 9])
    feed = {"hidden": STATES, "positions": POSITIONS, "label_ids": labels}
    found = run(backward.unfused_label_scorer(), feed, model, tmp_path)["label_logits"]
    with torch.no_grad():
        states = torch.tensor(STATES[POSITIONS[:, 0], POSITIONS[:, 1]])
        logits = model.lm_head(model.model.norm(states)).numpy()
    np.testing.assert_allclose(found, logits[:, labels], atol=1e-5)
