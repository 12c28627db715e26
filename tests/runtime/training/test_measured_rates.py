"""Rates that are measured before the first step."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.app.tuner import Tuner
from tests.runtime.tuner_runs import (
    BASE,
)

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_measured_rate_that_stays_is_a_third_of_one_that_falls(bundle, examples, tmp_path):
    found = {}
    for name in ("constant", "linear"):
        config = dataclasses.replace(BASE, lr="auto", lr_schedule=name)
        with Tuner.open(bundle, examples, config, tmp_path / name) as tuner:
            found[name] = tuner.run.rates.lr
    assert found["constant"] == pytest.approx(found["linear"] / 3, rel=1e-6)
