"""Rules say what one tensor does with its gradient estimate.

To add one: a file here, an entry in `RULES`, a row in `tests/contract/`.
"""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.rules.adam import Adam
from edgezo_runtime.rules.momentum import Momentum
from edgezo_runtime.rules.rule import Rule, Slot
from edgezo_runtime.rules.sgd import Sgd

RULES: dict[str, Callable[..., Rule]] = {
    "sgd": Sgd,
    "momentum": Momentum,
    "adam": Adam,
}

__all__ = ["RULES", "Adam", "Momentum", "Rule", "Sgd", "Slot"]
