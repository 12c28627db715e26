"""What the report of a step and the status of a run say."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.app.tuner import Tuner
from tests.runtime.tuner_runs import (
    BASE,
    SIZES,
    unstarted,
)

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.mark.parametrize(("method", "probes"), [("auto", 2), ("zo-sgd", 2), ("rloo", 8)])
def test_a_report_says_what_the_step_did(bundle, examples, tmp_path, method, probes):
    config = dataclasses.replace(BASE, method=method, schedule="cyclic", lr_schedule="linear")
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        first, second, *_, last = list(tuner)
        assert tuner.done
        assert tuner.run.fraction_done == 1
        assert tuner.step_number == 6
        assert tuner.run.elapsed_s >= first.elapsed_s + last.elapsed_s > 0
    assert (first.step, second.step, last.step) == (0, 1, 5)
    assert (first.blocks, second.blocks) == ((0,), (1,))
    assert first.rows == 2 * probes
    indices = unstarted(
        tuner.run.engine, examples, config, tuner.run.folder
    ).run.probes.batches.indices(0)
    assert first.tokens == probes * sum(SIZES[index] for index in indices)
    assert first.lr == pytest.approx(0.03 * (1 - 0.5 / 6))
    assert last.lr == pytest.approx(0.03 * 0.5 / 6)
    assert 0 < first.loss < 20
    assert first.projected_grad > 0
