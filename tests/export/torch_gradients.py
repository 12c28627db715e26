"""Gradients of small graphs by our rules, compared with those of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from edgezo_export.derivatives.pull_back import pull_back
from edgezo_export.graph_builder import Expansion, GraphBuilder
from edgezo_export.operators.unfused import UNFUSED

Build = Callable[[GraphBuilder, ir.Value, ir.Value], ir.Value]


Torch = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


F = torch.nn.functional


X, Y = (2, 3, 4), (3, 1)


def const(draft: GraphBuilder, *shape: int) -> ir.Value:
    size = int(np.prod(shape))
    return draft.constant(np.linspace(0.5, 1.5, size, dtype=np.float32).reshape(shape))


def tensor(*shape: int) -> torch.Tensor:
    size = int(np.prod(shape))
    return torch.tensor(np.linspace(0.5, 1.5, size, dtype=np.float32).reshape(shape))


def unary(op: str) -> Build:
    return lambda d, x, y: d.op("Mul", d.op(op, x), y)


def ops(op: str, **attributes: object) -> Build:
    return lambda d, x, y: d.op(op, x, y, **attributes)


def uneven(draft: GraphBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """x y + c: a norm does not feel a factor or a shift of all numbers."""
    return draft.op("Add", draft.op("Mul", x, y), const(draft, 4))


def graph(
    build: Build,
    shapes: Sequence[Sequence[int | str]],
    expand: Mapping[str, Expansion],
    gpu: bool = False,
) -> tuple[GraphBuilder, list[ir.Value], ir.Value]:
    """A case as a graph: draft, x and y, and the result."""
    draft = GraphBuilder("case", expand=expand, gpu=gpu)
    own = [
        draft.input(name, ir.DataType.FLOAT, shape)
        for name, shape in zip(("x", "y"), shapes, strict=True)
    ]
    return draft, own, build(draft, *own)


def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Values of x and y."""
    generator = np.random.default_rng(0)
    x, y = (generator.uniform(0.4, 1.8, shape).astype(np.float32) for shape in (X, Y))
    return x, y


def values(build: Build, expand: Mapping[str, Expansion]) -> np.ndarray:
    """The result of a case, with some operators expanded."""
    draft, _, result = graph(build, (X, Y), expand)
    draft.output(result, "result", ir.DataType.FLOAT, ("a", "b", "c"))
    session = onnxruntime.InferenceSession(draft.serialize(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip("xy", numbers(), strict=True)))[0]


CHOOSE_BY_SHAPE = {"FusedMatMul", "NonZero", "ConstantOfShape"}
"""Operators that have no place in graphs for GPUs."""


def gradients(
    build: Build, x: np.ndarray, y: np.ndarray, known: bool, gpu: bool = False
) -> list[np.ndarray]:
    """The gradients of x and y by a graph of ours."""
    shapes = (X, Y) if known else (("a", "b", 4), ("c", "d"))
    draft, own, result = graph(build, shapes, UNFUSED, gpu)
    seed = draft.input("seed", ir.DataType.FLOAT, ())
    weights = draft.op("Mul", draft.op("Cos", result), seed)
    for name, value in zip(("gx", "gy"), pull_back(draft, {result: weights}, own), strict=True):
        draft.output(value, name, ir.DataType.FLOAT, ("e", "f", "g")[: 3 if name == "gx" else 2])
    if gpu:
        assert not CHOOSE_BY_SHAPE.intersection(node.op_type for node in draft.nodes)
    session = onnxruntime.InferenceSession(draft.serialize(), providers=["CPUExecutionProvider"])
    feed = {"x": x, "y": y, "seed": np.float32(1.5)}
    return list(session.run(["gx", "gy"], {k: np.asarray(v) for k, v in feed.items()}))


def assert_gradients_of_torch(build: Build, function: Torch, known: bool) -> None:
    """Compare the gradients of a case with those of torch; with fixed shapes also those for GPUs.

    Args:
        build: the case as a graph.
        function: the case in torch.
        known: give the graph fixed shapes.
    """
    x, y = numbers()
    a, b = (torch.tensor(array, requires_grad=True) for array in (x, y))
    result = function(a, b)
    (torch.sin(result).sum() * 1.5).backward()
    for gpu in (False, True) if known else (False,):
        made = gradients(build, x, y, known, gpu)
        for found, expected in zip(made, (a.grad, b.grad), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-6)
