"""Products with experts against a loop over tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.experts import emit_expert_linear, emit_routing
from edgezo_export.operators.linear import LinearLowering, LinearSpec
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
TOKENS, SLOTS, EXPERTS, WIDTH, OUT = 6, 2, 5, 8, 3
INDEX = np.array([[0, 3], [3, 0], [1, 3], [0, 1], [3, 1], [1, 0]])  # nobody goes to 2 and 4


class Matrices:
    """Experts as a checkpoint; counts how often each is fed."""

    def __init__(self) -> None:
        size = (EXPERTS, OUT, WIDTH)
        self.all = np.random.default_rng(1).normal(size=size).astype(np.float32)

    def state_dict(self):
        return {f"e[{n}].weight": Numpy(own) for n, own in enumerate(self.all)}


class Numpy:
    """What `graph_runner` asks of a tensor of torch."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def numpy(self) -> np.ndarray:
        return self._values


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("by_slot", [False, True])
def test_every_token_meets_its_experts(tmp_path, by_slot, groups):
    draft = GraphBuilder("experts")
    shape = ("t", SLOTS, WIDTH) if by_slot else ("t", WIDTH)
    x = draft.input("x", FLOAT, shape)
    index = draft.input("index", ir.DataType.INT64, ("t", SLOTS))
    routing = emit_routing(draft, index, draft.ints(groups), EXPERTS, SLOTS)
    specs = [LinearSpec((f"e[{n}]",), (OUT,), WIDTH, False, ()) for n in range(EXPERTS)]
    y = emit_expert_linear(draft, LinearLowering(draft, "fp32"), specs, x, routing, by_slot=by_slot)
    draft.output(y, "y", FLOAT, ("t", SLOTS, OUT))
    size = (TOKENS, SLOTS, WIDTH) if by_slot else (TOKENS, WIDTH)
    rows = np.random.default_rng(0).normal(size=size).astype(np.float32)
    matrices = Matrices()
    found = run(draft, {"x": rows, "index": INDEX}, matrices, tmp_path)["y"]
    for token in range(TOKENS):
        for slot in range(SLOTS):
            own = rows[token, slot] if by_slot else rows[token]
            expected = matrices.all[INDEX[token, slot]] @ own
            np.testing.assert_allclose(found[token, slot], expected, rtol=1e-5, atol=1e-6)
