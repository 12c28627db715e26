"""The state of a run: what a step changes, what an average holds, what a snapshot keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from tests.runtime.tuner_runs import (
    BASE,
    with_both_factors,
)

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_frozen_factor_never_changes(bundle, examples, tmp_path):
    both = with_both_factors(bundle, tmp_path / "ab")
    for own, changes in ((bundle, {"lora_B"}), (both, {"lora_A", "lora_B"})):
        initial = own.trainables()
        with Tuner.open(own, examples, BASE, tmp_path / f"run{len(changes)}") as tuner:
            for _ in tuner:
                pass
            adapter = tuner.adapter()
        changed = {
            name.rpartition(".")[2] for name in adapter if (adapter[name] != initial[name]).any()
        }
        assert changed == changes
        assert all(value.dtype == np.float32 for value in adapter.values())


@pytest.mark.parametrize(("schedule", "blocks"), [("last:1", "auto"), ("all", "1")])
def test_blocks_that_do_not_train_keep_their_bits(bundle, examples, tmp_path, schedule, blocks):
    config = dataclasses.replace(BASE, schedule=schedule, blocks=blocks)
    initial = bundle.trainables()
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        assert (tmp_path / "prefix.cache").exists()
        reports = list(tuner)
        adapter = tuner.adapter()
    assert {report.blocks for report in reports} == {(1,)}
    own = {info.name: info.block for info in bundle.manifest.trainables if info.trains}
    for name, block in own.items():
        assert (adapter[name] != initial[name]).any() == (block == 1)


def test_the_adapter_is_the_running_average(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, average=0.5, steps=3)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        name = next(iter(tuner.run.state.slots))
        np.testing.assert_array_equal(tuner.adapter()[name], tuner.run.theta[name])
        seen = [(tuner.step(), tuner.run.theta[name].copy())[1] for _ in range(3)]
        expected = sum(value * 0.5 ** (3 - i) for i, value in enumerate(seen)) / (1 - 0.5**3)
        np.testing.assert_allclose(tuner.adapter()[name], expected, rtol=1e-5, atol=1e-7)
        handed_out = tuner.adapter()
        for value in handed_out.values():
            value[:] = np.nan
        assert all(np.isfinite(value).all() for value in tuner.run.theta.values())
        assert all(np.isfinite(value).all() for value in tuner.adapter().values())
    config = dataclasses.replace(BASE, average=0.0, steps=3)
    with Tuner.open(bundle, examples, config, tmp_path / "plain") as tuner:
        list(tuner)
        np.testing.assert_array_equal(tuner.adapter()[name], tuner.run.theta[name])
