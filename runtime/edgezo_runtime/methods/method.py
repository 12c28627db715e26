"""The definition of a method: its parts, its settings and its published rates."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgezo_runtime.config import MethodOptions, TuneConfig
from edgezo_runtime.methods.estimators import Estimator
from edgezo_runtime.methods.rules import FrameRule, Rule, Sgd
from edgezo_runtime.methods.samplers import Dense, Sampler

FULL_LR, FULL_EPS, LORA_LR, LORA_EPS = 1e-6, 1e-3, 1e-4, 1e-2
"""MeZO's rates for all weights and for LoRA (arXiv:2305.17333, table 16)."""

_LORA_SCALE = 2.0
"""alpha / rank of MeZO's LoRA."""


@dataclass(frozen=True, slots=True)
class Published:
    """A learning rate and a perturbation scale that were published together.

    Attributes:
        lr: learning rate.
        eps: perturbation scale.
        trainables: the trainables of the publication.
        lengths: True if a step has the length lr whatever the gradient is (signs, Adam, normalized
            estimates).
        rank: the published directions are `rank` ** 0.5 times as long as the sampler's.
    """

    lr: float
    eps: float
    trainables: Literal["LoRA", "all weights", "tensor trains"] = "LoRA"
    lengths: bool = False
    rank: int = 1

    def converted(self, scale: float) -> tuple[float, float]:
        """Convert the rates for adapters whose product is multiplied by `scale`.

        Rates for all weights become rates for LoRA by the ratio of MeZO's own two. MeZO multiplies
        the adapter's product by 2. An adapter with another scale changes the model's function as
        much if it moves 2 / scale as far itself. So eps is multiplied by this factor, and lr by its
        square, since the gradient contains the inverse factor. An lr that is a length is multiplied
        as eps is.

        Args:
            scale: alpha / rank; 1 for trainables without a scale.

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
        """Return True if the rates can be converted for trainables of this kind."""
        return kind == ("tt" if self.trainables == "tensor trains" else "lora")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """An estimator, a rule, a sampler and settings under one name.

    Attributes:
        summary: one line.
        paper: where the method was published.
        evaluations: evaluations of the batch per step.
        state: number of float32 arrays the size of the trainables, besides the trainables.
        estimator: makes the gradient estimator; its first argument is eps.
        rule: makes the update rule.
        sampler: makes the sampler of directions.
        settings: fields of `TuneConfig` that differ from the defaults.
        published: rates of the paper, if they can be converted.
        scheme: kind of trainables, if it is part of the method.
        any_rule: True if the user may choose another rule.
        feedback: the method learns feedback, and steps by it; its estimator only has the options.
        problem: says what in a configuration the method cannot use; None if nothing.
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
    feedback: bool = False
    problem: Callable[[TuneConfig], str | None] = lambda config: None

    def options(self) -> dict[str, object]:
        """Return the method's own settings with their defaults."""
        found: dict[str, object] = {}
        for factory in (self.estimator, self.rule, self.sampler):
            for name, parameter in inspect.signature(factory).parameters.items():
                if name in MethodOptions.__dataclass_fields__:
                    found.setdefault(name, parameter.default)
        return found


@dataclass(frozen=True, slots=True)
class Parts:
    """The estimator, rule and sampler of a run."""

    estimator: Estimator
    rule: Rule | FrameRule
    sampler: Sampler
