"""The learning rate and perturbation scale of a run, and their origin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgezo_runtime.bundle.trainables import MAX_BLOCKS, SchemeInfo
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import METHODS

_SMALLEST, _LARGEST = 1e-30, 1e30
"""Rates are converted to float32, which cannot hold smaller or larger ones."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates and perturbation scale of a run.

    Attributes:
        lr: learning rate before its schedule.
        eps: perturbation scale.
        words: the origin of the rates, for people; empty if they were given.
        num_first_order: number of last blocks that take first-order steps.
        first_order_lr: learning rate of those blocks.
        seconds: time spent on measuring rates.
    """

    lr: float
    eps: float
    words: str = ""
    num_first_order: int = 0
    first_order_lr: float = 1.0
    seconds: float = 0.0

    @classmethod
    def of(cls, config: TuneConfig, scheme: SchemeInfo, num_first_order: int = 0) -> Rates:
        """Take the given or published rates; rates that will be measured are 1 until then.

        Args:
            config: how to tune.
            scheme: what trains.
            num_first_order: number of last blocks that take first-order steps.
        Raises:
            UsageError: the published rates are for other trainables.
        """
        published = METHODS[config.method].published
        if published and "published" in (config.lr, config.eps) and not published.fits(scheme.kind):
            raise UsageError(
                f"`lr` and `eps` published: the rates of {config.method} are for "
                f"{published.trainables}, in this bundle {scheme.kind} trains; give numbers, or "
                f"auto"
            )
        lr, eps = published.converted(scheme.scale) if published else (1.0, 1.0)
        words = "" if "published" not in (config.lr, config.eps) else "published, converted"
        return cls(
            lr=_chosen(config.lr, lr),
            eps=_chosen(config.eps, eps),
            words=words,
            num_first_order=num_first_order,
            first_order_lr=_chosen(config.first_order_lr, 1.0),
        )

    def check(self) -> None:
        """Refuse rates that no run can have.

        Raises:
            UsageError: names the rate.
        """
        for name in ("lr", "eps", "first_order_lr"):
            value = getattr(self, name)
            if not _SMALLEST <= value <= _LARGEST:
                raise UsageError(f"{name} {value}: must be {_SMALLEST:g} to {_LARGEST:g}")
        if not 0 <= self.num_first_order <= MAX_BLOCKS or not 0 <= self.seconds < math.inf:
            raise UsageError(
                f"num_first_order {self.num_first_order}, seconds {self.seconds}: must be 0 or more"
            )


def _chosen(given: float | str, published: float) -> float:
    if isinstance(given, str):
        return published if given == "published" else 1.0
    return given
