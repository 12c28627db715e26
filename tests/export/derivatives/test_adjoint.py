"""Every vector-Jacobian product against torch's, on graphs of a few operators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from edgezo_export.derivatives.adjoint import RULES, pull_back
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.unfused import PLAIN

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


# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "Abs": (unary("Abs"), lambda x, y: x.abs() * y),
    "Add": (ops("Add"), lambda x, y: x + y),
    "Div": (ops("Div"), lambda x, y: x / y),
    "Div by x": (lambda d, x, y: d.op("Div", y, x), lambda x, y: y / x),
    "Erf": (unary("Erf"), lambda x, y: torch.erf(x) * y),
    "Exp": (unary("Exp"), lambda x, y: torch.exp(x) * y),
    "Mul": (ops("Mul"), lambda x, y: x * y),
    "Neg": (unary("Neg"), lambda x, y: -x * y),
    "Reciprocal": (unary("Reciprocal"), lambda x, y: y / x),
    "Sigmoid": (unary("Sigmoid"), lambda x, y: torch.sigmoid(x) * y),
    "Sqrt": (unary("Sqrt"), lambda x, y: torch.sqrt(x) * y),
    "Sub": (lambda d, x, y: d.op("Sub", y, x), lambda x, y: y - x),
    "Tanh": (unary("Tanh"), lambda x, y: torch.tanh(x) * y),
    "Relu": (
        lambda d, x, y: d.op("Relu", d.op("Sub", x, y)),
        lambda x, y: F.relu(x - y),
    ),
    "Pow": (
        lambda d, x, y: d.op("Add", d.op("Pow", x, d.scalar(3.0)), y),
        lambda x, y: x**3 + y,
    ),
    "Cast": (
        lambda d, x, y: d.op("Mul", d.op("Cast", x, to=int(ir.DataType.FLOAT)), y),
        lambda x, y: x * y,
    ),
    "Identity": (unary("Identity"), lambda x, y: x * y),
    "Where": (
        lambda d, x, y: d.op("Where", d.op("Less", x, d.scalar(1.0)), x, y),
        lambda x, y: torch.where(x < 1, x, y),
    ),
    "Concat": (
        lambda d, x, y: d.op("Concat", x, d.op("Mul", x, y), const(d, 2, 3, 2), axis=-1),
        lambda x, y: torch.cat([x, x * y, tensor(2, 3, 2)], -1),
    ),
    "Split": (
        lambda d, x, y: d.op("Mul", d.ops("Split", 2, x, d.ints(1, 3), axis=-1)[1], y),
        lambda x, y: x[..., 1:] * y,
    ),
    "Slice": (
        lambda d, x, y: d.op("Mul", d.op("Slice", x, d.ints(-3), d.ints(99), d.ints(-1)), y),
        lambda x, y: x[..., 1:] * y,
    ),
    "Slice in steps": (
        lambda d, x, y: d.op(
            "Mul", d.op("Slice", x, d.ints(1), d.ints(99), d.ints(-1), d.ints(2)), y
        ),
        lambda x, y: x[..., 1::2] * y,
    ),
    "Pad": (
        lambda d, x, y: d.op("Mul", d.op("Pad", x, d.ints(0, 0, 1, 0, 0, 2)), y),
        lambda x, y: F.pad(x, (1, 2)) * y,
    ),
    "Expand": (
        lambda d, x, y: d.op("Mul", d.op("Expand", y, d.ints(2, 3, 4)), x),
        lambda x, y: y.expand(2, 3, 4) * x,
    ),
    "Reshape": (
        lambda d, x, y: d.op("Mul", d.op("Reshape", x, d.ints(-1, 3, 1)), y),
        lambda x, y: x.reshape(-1, 3, 1) * y,
    ),
    "Transpose": (
        lambda d, x, y: d.op("Mul", d.op("Transpose", x, perm=[2, 1, 0]), y),
        lambda x, y: x.permute(2, 1, 0) * y,
    ),
    "Squeeze": (
        lambda d, x, y: d.op("Mul", x, d.op("Unsqueeze", d.op("Squeeze", y), d.ints(1))),
        lambda x, y: x * y,
    ),
    "Unsqueeze": (
        lambda d, x, y: d.op("Mul", d.op("Unsqueeze", x, d.ints(0)), y),
        lambda x, y: x[None] * y,
    ),
    "ReduceMean": (
        lambda d, x, y: d.op("Add", y, d.op("ReduceMean", x, d.ints(-1), keepdims=1)),
        lambda x, y: y + x.mean(-1, keepdim=True),
    ),
    "ReduceSum": (
        lambda d, x, y: d.op("Add", y, d.op("ReduceSum", x, d.ints(0, 2), keepdims=0)),
        lambda x, y: y + x.sum((0, 2)),
    ),
    "Softmax": (
        lambda d, x, y: d.op("Mul", d.op("Softmax", x, axis=-1), y),
        lambda x, y: torch.softmax(x, -1) * y,
    ),
    "MatMul by a matrix": (
        lambda d, x, y: d.op("MatMul", d.op("Mul", x, y), const(d, 4, 5)),
        lambda x, y: (x * y) @ tensor(4, 5),
    ),
    "MatMul of a matrix": (
        lambda d, x, y: d.op("MatMul", d.op("Transpose", x, perm=[0, 2, 1]), y),
        lambda x, y: x.transpose(1, 2) @ y,
    ),
    "MatMul of both": (
        lambda d, x, y: d.op("MatMul", x, d.op("Transpose", d.op("Mul", x, y), perm=[0, 2, 1])),
        lambda x, y: x @ (x * y).transpose(1, 2),
    ),
    "Gemm": (
        lambda d, x, y: d.op(
            "Gemm", d.op("Reshape", d.op("Mul", x, y), d.ints(6, 4)), const(d, 5, 4), transB=1
        ),
        lambda x, y: (x * y).reshape(6, 4) @ tensor(5, 4).T,
    ),
    "Gather": (
        lambda d, x, y: d.op(
            "Gather", d.op("Mul", x, y), d.constant(np.array([1, 0, 1, 1], np.int64)), axis=0
        ),
        lambda x, y: (x * y)[[1, 0, 1, 1]],
    ),
    "GatherND in batches": (
        lambda d, x, y: d.op(
            "GatherND",
            d.op("Mul", x, y),
            d.constant(np.array([[[2], [0], [2], [1]], [[1], [1], [1], [0]]], np.int64)),
            batch_dims=1,
        ),
        lambda x, y: torch.stack([(x * y)[0, [2, 0, 2, 1]], (x * y)[1, [1, 1, 1, 0]]]),
    ),
    "GatherND": (
        lambda d, x, y: d.op(
            "GatherND", d.op("Mul", x, y), d.constant(np.array([[1, 2], [0, 0], [1, 2]], np.int64))
        ),
        lambda x, y: (x * y)[[1, 0, 1], [2, 0, 2]],
    ),
    "Gelu": (lambda d, x, y: d.op("Gelu", d.op("Sub", x, y)), lambda x, y: F.gelu(x - y)),
    "Gelu by tanh": (
        lambda d, x, y: d.op("Gelu", d.op("Sub", x, y), approximate="tanh"),
        lambda x, y: F.gelu(x - y, approximate="tanh"),
    ),
    "LayerNormalization": (
        lambda d, x, y: d.op(
            "LayerNormalization", uneven(d, x, y), const(d, 4), const(d, 4), axis=-1
        ),
        lambda x, y: F.layer_norm(x * y + tensor(4), (4,), tensor(4), tensor(4)),
    ),
    "SimplifiedLayerNormalization": (
        lambda d, x, y: d.op(
            "SimplifiedLayerNormalization", uneven(d, x, y), const(d, 4), axis=-1, epsilon=1e-5
        ),
        lambda x, y: F.rms_norm(x * y + tensor(4), (4,), tensor(4), 1e-5),
    ),
    "QuickGelu": (
        lambda d, x, y: d.op("QuickGelu", d.op("Sub", x, y), alpha=1.0),
        lambda x, y: F.silu(x - y),
    ),
}


def gradients(build: Build, x: np.ndarray, y: np.ndarray, known: bool) -> list[np.ndarray]:
    """Result, its gradient seed, and the gradients of x and y, by a graph of ours."""
    draft = GraphBuilder("case", expand=PLAIN)
    axes = [X, Y] if known else [("a", "b", 4), ("c", "d")]
    own = [
        draft.input(name, ir.DataType.FLOAT, shape)
        for name, shape in zip(("x", "y"), axes, strict=True)
    ]
    result = build(draft, *own)
    seed = draft.input("seed", ir.DataType.FLOAT, ())
    weights = draft.op("Mul", draft.op("Cos", result), seed)
    for name, value in zip(("gx", "gy"), pull_back(draft, {result: weights}, own), strict=True):
        draft.output(value, name, ir.DataType.FLOAT, ("e", "f", "g")[: 3 if name == "gx" else 2])
    session = onnxruntime.InferenceSession(draft.serialize(), providers=["CPUExecutionProvider"])
    feed = {"x": x, "y": y, "seed": np.float32(1.5)}
    return list(session.run(["gx", "gy"], {k: np.asarray(v) for k, v in feed.items()}))


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_product_is_that_of_torch(case, known):
    build, function = CASES[case]
    generator = np.random.default_rng(0)
    x, y = (generator.uniform(0.4, 1.8, shape).astype(np.float32) for shape in (X, Y))
    a, b = (torch.tensor(array, requires_grad=True) for array in (x, y))
    result = function(a, b)
    (torch.sin(result).sum() * 1.5).backward()
    for found, expected in zip(gradients(build, x, y, known), (a.grad, b.grad), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=2e-6)


def test_every_rule_is_tested():
    assert {name.split()[0] for name in CASES} == {*RULES, *PLAIN} - {
        "GroupQueryAttention",  # tests/runtime/engine/test_first_order.py, in whole models
        "MultiHeadAttention",
    }


def test_an_operator_without_a_derivative_is_named():
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, ("rows", 4))
    y = draft.op("Floor", x)
    with pytest.raises(UnsupportedModelError, match="operator Floor has no gradient"):
        pull_back(draft, {y: draft.op("Identity", y)}, [x])


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "message"),
    [
        ("Gather", (2,), {"axis": 1}, "another axis"),
        ("GatherND", (2, 3, 1), {"batch_dims": 2}, "several batch dimensions"),
    ],
)
def test_a_form_without_a_derivative_is_named(op, shape, attributes, message):
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, (2, 3, 4))
    y = draft.op(op, x, draft.constant(np.zeros(shape, np.int64)), **attributes)
    with pytest.raises(UnsupportedModelError, match=message):
        pull_back(draft, {y: draft.op("Identity", y)}, [x])


def test_a_target_without_influence_is_refused():
    draft = GraphBuilder("case")
    x, y = (draft.input(name, ir.DataType.FLOAT, ("rows",)) for name in "xy")
    with pytest.raises(UnsupportedModelError, match="depend on 'y'"):
        pull_back(draft, {draft.op("Neg", x): x}, [x, y])
