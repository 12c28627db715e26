"""Refuses configurations that make no sense, before anything is opened."""

from __future__ import annotations

import math

from edgezo_runtime.config import OBJECTIVES, OWN_RULE, TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.block_schedules import parse_schedule
from edgezo_runtime.methods.catalogue import METHODS, assemble
from edgezo_runtime.methods.lr_schedules import LR_SCHEDULES
from edgezo_runtime.methods.rules import RULES

_LARGEST, _LARGEST_OPTION = 10**12, 10**6
"""No count is larger, nor any setting of a method's own."""


def check_config(config: TuneConfig) -> None:
    """Refuse values that make no sense.

    Raises:
        UsageError: naming the flag, the value and what is expected.
    """

    for name, known in (
        ("method", list(METHODS)),
        ("rule", [OWN_RULE, *RULES]),
        ("lr_schedule", list(LR_SCHEDULES)),
    ):
        value = getattr(config, name)
        if value not in known:
            raise UsageError(f"{_flag(name)} {value}: expected one of {', '.join(known)}")
    if config.scope not in ("auto", "all", "answer"):
        raise UsageError(f"--scope {config.scope}: expected auto, all or answer")
    _check_objective(config)
    if config.noise not in ("rademacher", "gaussian"):
        raise UsageError(f"--noise {config.noise}: expected rademacher or gaussian")
    parse_schedule(config.schedule)
    for name in ("lr", "eps"):
        value = getattr(config, name)
        if value in ("auto", "published"):
            if value == "published" and METHODS[config.method].published is None:
                raise UsageError(
                    f"{_flag(name)} published: nothing that fits was published for "
                    f"{config.method}; give a number, or auto"
                )
        elif isinstance(value, str) or not math.isfinite(value) or value <= 0:
            raise UsageError(
                f"{_flag(name)} {value}: must be a number above zero, auto or published"
            )
    for name, low in (("first_order_lr", 5e-324), ("epochs", 0.0)):
        value = getattr(config, name)
        if value != "auto" and not (low <= value < math.inf):
            raise UsageError(
                f"{_flag(name)} {value}: must be auto or a number "
                f"{'above zero' if low else 'of 0 or more'}"
            )
    if not (math.isfinite(config.clip) and config.clip >= 0):
        raise UsageError(f"--clip {config.clip}: must be a number, 0 or more")
    for name, low in (
        ("save_every", 1),
        ("steps", 0),
        ("horizon", 0),
        ("seed", 0),
        *([] if config.first_order == "auto" else [("first_order", 0)]),
        *([] if config.batch_size == "auto" else [("batch_size", 1)]),
    ):
        if getattr(config, name) < low:
            raise UsageError(f"{_flag(name)} {getattr(config, name)}: must be {low} or more")
    for name in ("steps", "horizon", "save_every", "batch_size", "epochs", "max_time_s"):
        value = getattr(config, name)
        if value != "auto" and value > _LARGEST:
            raise UsageError(f"{_flag(name)} {value}: must be {_LARGEST} or less")
    for option, value in config.options.given().items():
        if not isinstance(value, str) and not -_LARGEST_OPTION <= value <= _LARGEST_OPTION:
            raise UsageError(
                f"{_flag(option)} {value}: must be {_LARGEST_OPTION} or less, and a number"
            )
    if config.seed >= 2**64:
        raise UsageError(f"--seed {config.seed}: must be below 2^64")
    if not math.isfinite(config.max_time_s) or config.max_time_s < 0:
        raise UsageError(f"--max-time {config.max_time_s}: must be 0 seconds or more")
    if not config.steps and not config.max_time_s and config.epochs in ("auto", 0):
        raise UsageError(
            "--steps 0 and --max-time 0: a run needs an end; give one of them, or --epochs"
        )
    none = not config.wants_first_order if config.first_order == "auto" else not config.first_order
    if none and config.first_order_lr != "auto":
        raise UsageError(
            f"--first-order-lr {config.first_order_lr}: no block takes first-order steps; give "
            f"--first-order K"
        )
    if not 0 <= config.average < 1:
        raise UsageError(f"--average {config.average}: must be in [0, 1)")
    assemble(config.settled(1, all_first_order=False), 1.0)
    problem = METHODS[config.method].problem(config)
    if problem:
        raise UsageError(problem)


def _check_objective(config: TuneConfig) -> None:
    """Refuse an objective that is none, and gradients of one that has none."""
    if config.objective not in OBJECTIVES:
        raise UsageError(f"--objective {config.objective}: expected one of {', '.join(OBJECTIVES)}")
    if config.objective != "loss" and config.first_order not in ("auto", 0):
        raise UsageError(
            f"--first-order {config.first_order}: {config.objective} has no gradient; leave it "
            f"out, or descend the loss"
        )
    if not (math.isfinite(config.temperature) and config.temperature >= 0):
        raise UsageError(f"--temperature {config.temperature}: must be 0 or more")
    if config.max_new_tokens < 1 or config.max_new_tokens > _LARGEST:
        raise UsageError(f"--max-new-tokens {config.max_new_tokens}: must be 1 or more")
    if "" in config.stop:
        raise UsageError("--stop: a stop text is empty")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
