"""Durations and rates as people read them."""

from __future__ import annotations

import math

import pytest

from edgezo.wording import duration, model_name, rate, significant


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (1e-9, "1ms"), (0.04, "40ms"), (0.9991, "1s"), (1, "1s"), (8.4, "8s"),
        (59.4, "59s"), (59.6, "1m00s"), (250, "4m10s"), (3599.6, "1h00m"), (3900, "1h05m"),
        (47 * 3600, "47h00m"), (76 * 3600, "3d04h"), (1e12, "11574074d01h"),
        (-185, "0s"), (-1e-9, "0s"), (math.inf, "-"), (-math.inf, "-"), (math.nan, "-"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """The time left of a run was "-185s"."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (0.7, "0.7"), (0.123, "0.12"), (0.0321, "0.032"), (0.00456, "0.0046"), (1e-9, "<0.001"),
        (0, "0"), (0.999, "1"), (1, "1"), (1.449, "1.4"), (9.96, "10"), (12.4, "12"),
        (96.4, "96"), (99.6, "100"), (343, "340"), (23456, "23,000"), (1e9, "1,000,000,000"),
        (None, "-"), (math.nan, "-"), (math.inf, "-"), (-1, "-"),
    ],
)  # fmt: skip
def test_rates_have_two_digits(per_second: float | None, text: str) -> None:
    """Half a row per second was shown as 0."""
    assert rate(per_second) == text


def test_significant_digits() -> None:
    assert significant(0.0012345, 4) == 0.001234
    assert significant(98765.4, 4) == 98770
    assert significant(0.0) == 0


def test_a_model_of_a_folder_has_its_name() -> None:
    assert (
        model_name("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    assert model_name("/home/me/models/mine/") == "mine"
    assert model_name("C:\\models\\mine") == "mine"
    assert model_name("/") == "/"
