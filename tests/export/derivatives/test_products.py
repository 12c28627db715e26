"""Vector-Jacobian products of `products` against those of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.derivatives import products
from edgezo_export.graph_builder import MICROSOFT
from tests.export.torch_gradients import (
    Build,
    Torch,
    assert_gradients_of_torch,
    const,
    tensor,
)

GROUP = 16
SCALES = np.linspace(0.5e-3, 1.5e-3, 10, dtype=np.float32).reshape(5, 2)
"""So small that results are near one: the cosine of a large number tells of its rounding only."""


def stored(bits: int) -> np.ndarray:
    """Codes of a matrix (5, 32) in groups: (5, 2, bytes of a group) uint8."""
    return np.random.default_rng(bits).integers(0, 256, (5, 2, GROUP * bits // 8), np.uint8)


def in_groups(bits: int) -> Build:
    """(x y) times a plain matrix (4, 32), times one in groups (32, 5)."""

    def build(d, x, y):
        values, scales = d.constant(stored(bits)), d.constant(SCALES)
        wide = d.op("MatMul", d.op("Mul", x, y), const(d, 4, 32))
        sizes = {"K": 32, "N": 5, "bits": bits, "block_size": GROUP, "accuracy_level": 1}
        return d.op("MatMulNBits", wide, values, scales, domain=MICROSOFT, **sizes)

    return build


def matrix(bits: int) -> torch.Tensor:
    """The same matrix (32, 5) in float32: the smaller half of a byte is the first of two codes."""
    codes = torch.tensor(stored(bits)).to(torch.int32)
    if bits == 4:
        codes = torch.stack([codes % 16, codes // 16], -1).reshape(5, 2, GROUP)
    return ((codes - 2 ** (bits - 1)) * torch.tensor(SCALES)[:, :, None]).reshape(5, 32).T


# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
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
    "MatMulNBits of 4 bits": (in_groups(4), lambda x, y: (x * y) @ tensor(4, 32) @ matrix(4)),
    "MatMulNBits of 8 bits": (in_groups(8), lambda x, y: (x * y) @ tensor(4, 32) @ matrix(8)),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_product_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_matrix_in_groups_goes_back_tile_by_tile(bits, monkeypatch):
    monkeypatch.setattr(products, "GPU_TILE", 2 * 32)  # two outputs, two, and one
    assert_gradients_of_torch(*CASES[f"MatMulNBits of {bits} bits"], True)


def test_every_rule_is_tested():
    assert {name.split()[0] for name in CASES} == {*products.RULES}
