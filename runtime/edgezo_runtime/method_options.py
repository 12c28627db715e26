"""Settings that only some methods take. What is None is as the method has it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

OWN_RULE = "own"
"""The word for the rule that is a method's own."""


def _option(help: str) -> Any:
    return field(default=None, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What `edgezo methods` lists behind a method's name. `edgezo_runtime.methods` checks them."""

    num_directions: int | None = _option("directions a step (the most, where they grow)")
    directions: Literal["private", "shared"] | None = _option(
        "does every example have its own directions"
    )
    sign: Literal["elementwise", "scalar"] | None = _option(
        "sign of every element of the gradient, or of the projected gradient alone"
    )
    momentum: float | None = _option("decay of the momentum, not damped")
    b1: float | None = _option("decay of the first moment")
    b2: float | None = _option("decay of the second moment")
    weight_decay: float | None = _option("decoupled weight decay, per unit of lr")
    sparsity: float | None = _option("share of the coordinates that rest")
    mask: Literal["small", "large", "random"] | None = _option("which coordinates move")
    subspace_rank: int | None = _option("rank of the directions")
    refresh: int | None = _option("steps between new subspaces")
    smoothing: float | None = _option("weight of a step's curvature in the running one")
    anchor_every: int | None = _option("steps between anchors")
    anchor_lr: float | None = _option("learning rate at an anchor, in units of lr")
    anchor_batches: int | None = _option("batches that stand for all data at an anchor")
    query_scale: float | None = _option("a of a e^b directions in epoch e")
    query_growth: float | None = _option("b of a e^b directions in epoch e")
    anneal_steps: float | None = _option("steps in which the weight of a new gradient falls to b1")
    hessian_every: int | None = _option("steps between estimates of the curvature")

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        fields = dataclasses.fields(self)
        values = {field_.name: getattr(self, field_.name) for field_ in fields}
        return {name: value for name, value in values.items() if value is not None}
