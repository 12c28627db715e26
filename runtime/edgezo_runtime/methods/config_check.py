"""Check a run's configuration before anything is opened."""

from __future__ import annotations

import math

from edgezo_runtime.config import OBJECTIVES, OWN_RULE, TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.block_schedules import parse_schedule
from edgezo_runtime.methods.catalogue import METHODS, assemble
from edgezo_runtime.methods.lr_schedules import LR_SCHEDULES
from edgezo_runtime.methods.rules import RULES

_LARGEST_COUNT = 10**12
"""Upper limit of steps, epochs, seconds and batch sizes."""

_LARGEST_OPTION = 10**6
"""Upper limit of a method's own settings."""

_SMALLEST_FLOAT = 5e-324
"""The smallest float64 above zero."""

_ENDLESS = (
    "`max_time_s` 0 sets no limit of time, and without `steps` or `epochs` only first-order steps "
    "and feedback have a length of their own: this run needs an end; give `steps`, `epochs` or a "
    "time"
)


def check_config(config: TuneConfig) -> None:
    """Refuse values that are unknown or out of range, and values that contradict each other.

    Raises:
        UsageError: names the field, its value and what is expected.
    """
    _check_names(config)
    _check_objective(config)
    _check_rates(config)
    _check_counts(config)
    _check_length(config)
    _check_first_order(config)
    _check_method(config)


def _check_names(config: TuneConfig) -> None:
    """Refuse names that are not in the tables of methods, rules and schedules."""
    for name, known in (
        ("method", list(METHODS)),
        ("rule", [OWN_RULE, *RULES]),
        ("lr_schedule", list(LR_SCHEDULES)),
    ):
        value = getattr(config, name)
        if value not in known:
            raise UsageError(f"`{name}` {value}: expected one of {', '.join(known)}")
    if config.scope not in ("auto", "all", "answer"):
        raise UsageError(f"`scope` {config.scope}: expected auto, all or answer")
    if config.noise not in ("rademacher", "gaussian"):
        raise UsageError(f"`noise` {config.noise}: expected rademacher or gaussian")
    parse_schedule(config.schedule)


def _check_objective(config: TuneConfig) -> None:
    """Refuse unknown objectives, and first-order steps on an objective without a gradient."""
    if config.objective not in OBJECTIVES:
        raise UsageError(f"`objective` {config.objective}: expected one of {', '.join(OBJECTIVES)}")
    if config.objective != "loss" and config.first_order not in ("auto", 0):
        raise UsageError(
            f"`first_order` {config.first_order}: {config.objective} has no gradient; set "
            f"`first_order` to 0, or `objective` to loss"
        )
    if not (math.isfinite(config.temperature) and config.temperature >= 0):
        raise UsageError(f"`temperature` {config.temperature}: must be 0 or more")
    if config.max_new_tokens < 1 or config.max_new_tokens > _LARGEST_COUNT:
        raise UsageError(f"`max_new_tokens` {config.max_new_tokens}: must be 1 or more")
    if "" in config.stop:
        raise UsageError("`stop`: a stop text is empty; remove it")


def _check_rates(config: TuneConfig) -> None:
    """Refuse learning rates, perturbation scales, clipping and averaging out of range."""
    for name in ("lr", "eps"):
        value = getattr(config, name)
        if value in ("auto", "published"):
            if value == "published" and METHODS[config.method].published is None:
                raise UsageError(
                    f"`{name}` published: nothing that fits was published for "
                    f"{config.method}; give a number, or auto"
                )
        elif isinstance(value, str) or not math.isfinite(value) or value <= 0:
            raise UsageError(f"`{name}` {value}: must be a number above zero, auto or published")
    rate = config.first_order_lr
    if rate != "auto" and not _SMALLEST_FLOAT <= rate < math.inf:
        raise UsageError(f"`first_order_lr` {rate}: must be auto or a number above zero")
    if not (math.isfinite(config.clip) and config.clip >= 0):
        raise UsageError(f"`clip` {config.clip}: must be a number, 0 or more")
    if not 0 <= config.average < 1:
        raise UsageError(f"`average` {config.average}: must be in [0, 1)")


def _check_counts(config: TuneConfig) -> None:
    """Refuse counts, the seed and the method's own settings out of range."""
    for name, low in (
        ("save_every", 1),
        ("steps", 0),
        ("horizon", 0),
        ("seed", 0),
        ("first_order", 0),
        ("batch_size", 1),
    ):
        value = getattr(config, name)
        if value != "auto" and value < low:
            raise UsageError(f"`{name}` {value}: must be {low} or more")
    for name in ("steps", "horizon", "save_every", "batch_size", "max_time_s"):
        value = getattr(config, name)
        if value != "auto" and value > _LARGEST_COUNT:
            raise UsageError(f"`{name}` {value}: must be {_LARGEST_COUNT} or less")
    for name, value in config.options.given().items():
        if not isinstance(value, str) and not -_LARGEST_OPTION <= value <= _LARGEST_OPTION:
            raise UsageError(f"`{name}` {value}: must be a number, {_LARGEST_OPTION} or less")
    if config.seed >= 2**64:
        raise UsageError(f"`seed` {config.seed}: must be below 2^64")


def check_end(config: TuneConfig) -> None:
    """Refuse a run without an end, once it is known which blocks take first-order steps.

    Args:
        config: how to tune, "auto" filled in.
    Raises:
        UsageError: neither steps nor time limit the run.
    """
    if not config.steps and not config.max_time_s:
        raise UsageError(_ENDLESS)


def _check_length(config: TuneConfig) -> None:
    """Refuse lengths out of range, and runs that cannot have an end."""
    if config.epochs != "auto":
        if not 0 <= config.epochs < math.inf:
            raise UsageError(f"`epochs` {config.epochs}: must be auto or a number of 0 or more")
        if config.epochs > _LARGEST_COUNT:
            raise UsageError(f"`epochs` {config.epochs}: must be {_LARGEST_COUNT} or less")
    if config.max_time_s != "auto" and not 0 <= config.max_time_s < math.inf:
        raise UsageError(f"`max_time_s` {config.max_time_s}: must be auto, or 0 seconds or more")
    passes = METHODS[config.method].feedback or _may_take_first_order(config)
    if not config.epochs or (config.epochs == "auto" and not passes):  # "auto" takes some passes
        check_end(config)


def _may_take_first_order(config: TuneConfig) -> bool:
    """Do the settings allow first-order steps?"""
    auto = config.first_order == "auto"
    return config.wants_first_order if auto else bool(config.first_order)


def _check_first_order(config: TuneConfig) -> None:
    """Refuse a learning rate of first-order steps where there are none."""
    if config.first_order_lr != "auto" and not _may_take_first_order(config):
        raise UsageError(
            f"`first_order_lr` {config.first_order_lr}: no block takes first-order steps; set "
            f"`first_order` to a number of blocks"
        )


def _check_method(config: TuneConfig) -> None:
    """Refuse settings that the method does not take."""
    assemble(config.settled(1, all_first_order=False), 1.0)
    problem = METHODS[config.method].problem(config)
    if problem:
        raise UsageError(problem)
