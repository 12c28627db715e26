"""Rates of a run: given, published, or left to a measurement."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import METHODS, method_config
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.methods.rates import Rates

LORA = SchemeInfo("lora", ("q_proj",), 8, 16.0, "b")


def test_rates_of_tensor_trains_are_for_them_alone() -> None:
    config = method_config("adazeta", lr="published", eps="published")
    rates = Rates.of(config, SchemeInfo("tt", rank=5))
    assert (rates.lr, rates.eps) == (1e-4, 1e-3)
    with pytest.raises(UsageError, match="are for tensor trains, in this bundle lora trains"):
        Rates.of(config, LORA)
    with pytest.raises(UsageError, match="are for LoRA, in this bundle ia3 trains"):
        Rates.of(method_config("zo-sgd", lr="published"), SchemeInfo("ia3"))


@pytest.mark.parametrize("field", ["lr", "eps"])
def test_published_is_refused_where_nothing_was(field: str) -> None:
    for method, made in METHODS.items():
        config = method_config(method, **{field: "published"})
        scheme = SchemeInfo("tt", rank=5) if method == "adazeta" else LORA
        if made.published is not None:
            check_config(config)
            assert getattr(Rates.of(config, scheme), field) > 0
            continue
        with pytest.raises(UsageError, match=f"`{field}` published: nothing that fits was publ"):
            check_config(config)


def test_rates_of_a_run() -> None:
    given = Rates.of(method_config("zo-sgd", lr=0.5, eps=0.25), LORA)
    assert (given.lr, given.eps, given.words) == (0.5, 0.25, "")
    mixed = Rates.of(method_config("zo-sgd-mmt", lr="published", eps=0.25), LORA)
    assert (mixed.lr, mixed.eps) == pytest.approx((1e-5, 0.25))
    assert "published" in mixed.words


def test_rates_to_be_measured_are_one() -> None:
    rates = Rates.of(method_config("auto"), LORA, num_first_order=3)
    assert (rates.lr, rates.eps, rates.first_order_lr) == (1.0, 1.0, 1.0)
    assert (rates.num_first_order, rates.seconds, rates.words) == (3, 0.0, "")
    assert Rates.of(method_config("auto", first_order_lr=0.25), LORA).first_order_lr == 0.25


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0.0),
        ("lr", 1e31),
        ("eps", -1.0),
        ("eps", math.nan),
        ("first_order_lr", math.inf),
        ("num_first_order", -1),
        ("seconds", -0.5),
        ("seconds", math.inf),
    ],
)
def test_rates_that_no_run_can_have_are_refused(field: str, value: float) -> None:
    rates = Rates(0.5, 0.25)
    rates.check()
    with pytest.raises(UsageError, match=re.escape(f"{field} {value}")):
        dataclasses.replace(rates, **{field: value}).check()  # type: ignore[arg-type]
