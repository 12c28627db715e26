"""A small checkpoint, and a plan with every kind of tensor."""

from __future__ import annotations

import numpy as np

from edgezo_export.quantization.weights_plan import (
    PlannedTensor,
    plan_codes,
    plan_embedding,
    plan_groups,
    plan_linear,
)


class Arrays:
    """A checkpoint in memory."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def names(self) -> list[str]:
        return list(self.arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= len(self.arrays[name])
        return self.arrays[name][start:stop]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def checkpoint() -> Arrays:
    return Arrays(
        {
            "norm": random(32),
            "q": random(48, 32, seed=1),
            "k": random(16, 32, seed=2),
            "v": random(16, 32, seed=3),
            "q.bias": random(48),
            "k.bias": random(16),
            "conv1d": random(32, 96),
            "embed": random(1000, 32),
            "scalar": np.float32(3.5).reshape(()),
        }
    )


PLAN = [
    *plan_embedding("e", "e.scale", "embed", (1000, 32)),
    PlannedTensor("n", "F32", (32,), ("norm",), "plain", False),
    *plan_linear("qkv", "qkv.scale", ["q", "k", "v"], (32, 80), transpose=True),
    PlannedTensor("qk.bias", "F32", (64,), ("q.bias", "k.bias"), "concat", True),
    PlannedTensor("qk", "F32", (32, 64), ("q", "k"), "concat", True),
    PlannedTensor("q.t", "F32", (32, 48), ("q",), "plain", True),
    PlannedTensor("q.same", "F32", (48, 32), ("q",), "plain", False),
    *plan_linear("c", "c.scale", ["conv1d"], (32, 96), transpose=False),
    PlannedTensor("c.plain", "F32", (32, 96), ("conv1d",), "concat", False),
    PlannedTensor("s", "F32", (), ("scalar",), "plain", False),
    *plan_codes("q4", "m4", ["q", "v"], (32, 64), 16, transpose=True),
    *plan_groups("q8", "q8.scale", ["conv1d"], (32, 96), 32, transpose=False),
    PlannedTensor("half", "F16", (32, 64), ("q", "k"), "concat_half", True),
    PlannedTensor("n.half", "F16", (32,), ("norm",), "plain_half", False),
]
