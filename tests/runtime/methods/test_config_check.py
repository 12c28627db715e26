"""The check of configurations: which values and which combinations are refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from edgezo_runtime.config import OBJECTIVES, TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.config_check import check_config, check_end


def test_the_defaults_are_fine() -> None:
    check_config(TuneConfig())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "mezo", "`method` mezo: expected one of auto, feedback, zo-sgd"),
        ("rule", "lion", "`rule` lion: expected one of"),
        ("lr_schedule", "step", "`lr_schedule` step: expected one of"),
        ("noise", "uniform", "`noise` uniform: expected rademacher or gaussian"),
        ("schedule", "sometimes", "'sometimes': expected one of"),
        ("schedule", "last:0", "needs 1 block per step or more"),
        ("lr", 0.0, "`lr` 0.0: must be a number above zero"),
        ("lr", math.nan, "`lr` nan"),
        ("eps", -1e-3, "`eps` -0.001"),
        ("eps", math.inf, "`eps` inf"),
        ("clip", -1.0, "`clip` -1.0"),
        ("clip", math.inf, "`clip` inf"),
        ("lr", "best", "`lr` best: must be a number above zero, auto or published"),
        ("batch_size", 0, "`batch_size` 0: must be 1 or more"),
        ("save_every", 0, "`save_every` 0: must be 1 or more"),
        ("steps", -1, "`steps` -1: must be 0 or more"),
        ("seed", -1, "`seed` -1: must be 0 or more"),
        ("seed", 2**64, "must be below"),
        ("max_time_s", -1.0, "`max_time_s` -1.0: must be auto, or 0 seconds or more"),
        ("epochs", -1.0, "`epochs` -1.0: must be auto or a number of 0 or more"),
        ("epochs", math.inf, "`epochs` inf"),
        ("first_order", -1, "`first_order` -1: must be 0 or more"),
        ("first_order_lr", 0.0, "`first_order_lr` 0.0: must be auto or a number above zero"),
        ("max_time_s", math.nan, "`max_time_s` nan"),
        ("average", 1.0, r"`average` 1.0: must be in \[0, 1\)"),
        ("average", math.nan, "`average` nan"),
    ],
)
def test_values_that_make_no_sense_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_config(dataclasses.replace(TuneConfig(), **{field: value}))


def test_a_run_needs_an_end() -> None:
    """First-order steps and feedback have a length of their own, estimates have not."""
    endless = TuneConfig(max_time_s=0.0)
    for more in ({}, {"method": "feedback"}, {"first_order": 3}, {"epochs": 1.0}, {"steps": 1}):
        check_config(dataclasses.replace(endless, **more))
    for more in ({"method": "zo-sgd"}, {"first_order": 0}, {"lr": 0.1}, {"epochs": 0.0}):
        with pytest.raises(UsageError, match="this run needs an end; give `steps`, `epochs`"):
            check_config(dataclasses.replace(endless, **more))
    for first_order in (True, False):
        settled = endless.settled(100, all_first_order=first_order)
        if first_order:
            check_end(settled)
            continue
        with pytest.raises(UsageError, match="this run needs an end"):
            check_end(settled)


def test_the_ends_of_the_ranges_are_fine() -> None:
    check_config(
        TuneConfig(seed=2**64 - 1, average=0.0, clip=0.0, steps=1, max_time_s=0.0, batch_size=1)
    )


@pytest.mark.parametrize(
    "given",
    [{"first_order": 0}, {"method": "zo-sgd"}, {"lr": 0.1}, {"noise": "gaussian"}],
    ids=str,
)
def test_a_rate_of_first_order_steps_needs_some(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"`first_order_lr` 0.5: no block takes first-order steps"):
        check_config(method_config(**{"method": "auto", "first_order_lr": 0.5, **given}))
    check_config(TuneConfig(first_order_lr=0.5))


def test_passes_over_the_data_end_a_run() -> None:
    check_config(TuneConfig(epochs=0.5, max_time_s=0))
    with pytest.raises(UsageError, match="give `steps`, `epochs` or a time"):
        check_config(TuneConfig(max_time_s=0, first_order=0))


@pytest.mark.parametrize("given", [{"normalize": True}, {"clip": 2.0}], ids=str)
def test_steps_that_were_evaluated_are_not_shaped(given: dict[str, Any]) -> None:
    check_config(method_config("zo-sgd-cons"))
    with pytest.raises(UsageError, match="leave out `normalize` and `clip`"):
        check_config(method_config("zo-sgd-cons", **given))


# --- one test for each group ---


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scope", "answers", "`scope` answers: expected auto, all or answer"),
        ("objective", "bleu", "`objective` bleu: expected one of loss, accuracy"),
        ("temperature", -0.5, "`temperature` -0.5: must be 0 or more"),
        ("temperature", math.nan, "`temperature` nan: must be 0 or more"),
        ("max_new_tokens", 0, "`max_new_tokens` 0: must be 1 or more"),
        ("stop", ("a", ""), "`stop`: a stop text is empty; remove it"),
        ("horizon", -1, "`horizon` -1: must be 0 or more"),
        ("steps", 10**13, "`steps` 10000000000000: must be 1000000000000 or less"),
        ("epochs", 1e13, "`epochs` 10000000000000.0: must be 1000000000000 or less"),
        ("epochs", math.nan, "`epochs` nan: must be auto or a number of 0 or more"),
        ("max_time_s", math.inf, "`max_time_s` inf: must be 1000000000000 or less"),
        ("first_order_lr", math.inf, "`first_order_lr` inf: must be auto or a number above zero"),
        ("clip", math.nan, "`clip` nan: must be a number, 0 or more"),
        ("average", -0.1, "`average` -0.1: must be in"),
    ],
)
def test_fields_out_of_range_are_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_config(dataclasses.replace(TuneConfig(), **{field: value}))


@pytest.mark.parametrize("value", [10**6 + 1, -(10**6) - 1, math.nan, math.inf])
def test_settings_of_a_method_have_a_limit(value: float) -> None:
    with pytest.raises(UsageError, match=r"`smoothing` .*: must be a number, 1000000 or less"):
        check_config(method_config("hizoo", smoothing=value))


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "loss"])
def test_scores_have_no_first_order_steps(objective: str) -> None:
    for first_order in ("auto", 0):
        check_config(TuneConfig(objective=objective, first_order=first_order))  # type: ignore[arg-type]
    with pytest.raises(
        UsageError,
        match=f"`first_order` 3: {objective} has no gradient; set `first_order` to 0, or `obj",
    ):
        check_config(TuneConfig(objective=objective, first_order=3))  # type: ignore[arg-type]
