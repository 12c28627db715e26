"""What is known of linear layers before they are lowered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quant = Literal["int8", "w4", "w8", "fp16", "fp32", "keep"]
"""Forms of the frozen weights.

int8   one scale per output, activations coded as int8
w4     4-bit codes in groups of inputs, multiplied as int8, activations coded as int8
w8     8 bits in groups of inputs, multiplied as float32
fp16   multiplied as float32
fp32   float32
keep   as the checkpoint stores them: codes, 16 or 32 bits; multiplied as float32
"""


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """Frozen linear layers that read the same input, as one matrix.

    Attributes:
        modules: module paths, in output order.
        sizes: outputs of each.
        in_features: size of the shared input.
        in_out: weights are stored (in, out) in the checkpoint.
        biases: checkpoint names of the biases, all or none.
    """

    modules: tuple[str, ...]
    sizes: tuple[int, ...]
    in_features: int
    in_out: bool
    biases: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the fused weight in the bundle, without a suffix."""
        parent, _, first = self.modules[0].rpartition(".")
        names = [first, *(module.rsplit(".", 1)[-1] for module in self.modules[1:])]
        return f"{parent}.{'+'.join(names)}" if parent else "+".join(names)

    @property
    def sources(self) -> tuple[str, ...]:
        """Checkpoint names of the weights."""
        return tuple(f"{module}.weight" for module in self.modules)

    @property
    def out_features(self) -> int:
        """Outputs of all layers."""
        return sum(self.sizes)
