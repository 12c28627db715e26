"""Owns the update rules: how one tensor follows its gradient estimate.

Must not know estimators, models or data: a rule sees one tensor, its gradient and its slot.

To add one: a file here, an entry in `RULES`, a row in `tests/contract/`.
"""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.methods.rules.factor_momentum import FactorMomentum
from edgezo_runtime.methods.rules.helene import Helene
from edgezo_runtime.methods.rules.momentum import Momentum
from edgezo_runtime.methods.rules.rule import FrameRule, Rule, Slot
from edgezo_runtime.methods.rules.sgd import Sgd
from edgezo_runtime.methods.rules.sign import Sign
from edgezo_runtime.methods.rules.svrg import Svrg

RULES: dict[str, Callable[..., Rule]] = {
    "sgd": Sgd,
    "sign": Sign,
    "momentum": Momentum,
    "adam": Adam,
    "helene": Helene,
}
"""Rules that work with every estimator. `Svrg` needs `variance_reduced` and `FactorMomentum` needs
the sampler `LowRank`."""

__all__ = [
    "RULES",
    "Adam",
    "FactorMomentum",
    "FrameRule",
    "Helene",
    "Momentum",
    "Rule",
    "Sgd",
    "Sign",
    "Slot",
    "Svrg",
]
