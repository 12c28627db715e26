"""What a method consists of: its parts, its settings and its published rates."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgezo_runtime.config import MethodOptions, TuneConfig
from edgezo_runtime.methods.estimators import (
    Estimator,
)
from edgezo_runtime.methods.rules import (
    FrameRule,
    Rule,
    Sgd,
)
from edgezo_runtime.methods.samplers import (
    Dense,
    Sampler,
)

FULL_LR, FULL_EPS, LORA_LR, LORA_EPS = 1e-6, 1e-3, 1e-4, 1e-2
"""What MeZO (arXiv:2305.17333, table 16) takes for all weights and for LoRA."""


_LORA_SCALE = 2.0
"""alpha / rank of MeZO's LoRA."""


@dataclass(frozen=True, slots=True)
class Published:
    """A learning rate and a perturbation scale that were published together.

    Attributes:
        lr: learning rate.
        eps: perturbation scale.
        trainables: what they were published for.
        lengths: is a step lr long, whatever the gradient is (signs, Adam, normalized estimates)?
        rank: the published directions are `rank` ** 0.5 times as long as those made here.
    """

    lr: float
    eps: float
    trainables: Literal["LoRA", "all weights", "tensor trains"] = "LoRA"
    lengths: bool = False
    rank: int = 1

    def converted(self, scale: float) -> tuple[float, float]:
        """The same for adapters with a factor of their own.

        Of rates for all weights those for LoRA are made by the ratio of MeZO's own two. An adapter
        whose product is multiplied by `scale` in place of MeZO's 2 moves the model's function as
        far if it moves 2 / scale as far itself: eps by this factor, and lr by its square, since the
        gradient has the factor the other way round. Where lr is a length it goes like eps.

        Args:
            scale: alpha / rank; 1 for trainables that have none.

        Returns:
            (lr, eps).
        """
        factor = 1.0
        if self.trainables == "all weights":
            factor = LORA_EPS / FULL_EPS
        if self.trainables != "tensor trains":
            factor *= _LORA_SCALE / scale
        longer = math.sqrt(self.rank)
        lr = self.lr * factor if self.lengths else self.lr * (factor * longer) ** 2
        return lr, self.eps * factor * longer

    def fits(self, kind: str) -> bool:
        """Can the rates be converted for trainables of this kind?"""
        return kind == ("tt" if self.trainables == "tensor trains" else "lora")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A named composition.

    Attributes:
        summary: one line.
        paper: where it is from.
        evaluations: of the batch, a step.
        state: float32 arrays the size of the trainables that it keeps besides them.
        estimator: of the gradient; its first argument is eps.
        rule: what a tensor does with it.
        sampler: directions.
        settings: fields of `TuneConfig` in which it differs from the defaults.
        published: rates, where the paper has any that can be taken over.
        scheme: kind of trainables that the paper has, where that is part of the method.
        any_rule: may the user choose another rule?
        problem: what of a configuration does not go with it; None if nothing.
    """

    summary: str
    paper: str
    evaluations: str
    state: str = "0"
    estimator: Callable[..., Estimator]
    rule: Callable[..., Rule | FrameRule] = Sgd
    sampler: Callable[..., Sampler] = Dense
    settings: Mapping[str, object] = field(default_factory=dict)
    published: Published | None = None
    scheme: str | None = None
    any_rule: bool = True
    problem: Callable[[TuneConfig], str | None] = lambda config: None

    def options(self) -> dict[str, object]:
        """Settings of its own with their defaults."""
        found: dict[str, object] = {}
        for factory in (self.estimator, self.rule, self.sampler):
            for name, parameter in inspect.signature(factory).parameters.items():
                if name in MethodOptions.__dataclass_fields__:
                    found.setdefault(name, parameter.default)
        return found


@dataclass(frozen=True, slots=True)
class Parts:
    """What a method is made of, ready to run."""

    estimator: Estimator
    rule: Rule | FrameRule
    sampler: Sampler
