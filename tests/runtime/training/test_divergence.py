"""The guard: when it returns, when it keeps a copy, and that a run with it replays to its bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import DivergedError
from edgezo_runtime.training.divergence import (
    GOOD_EVERY,
    MOST_RETURNS,
    SETTLED,
    WINDOW,
    LossMonitor,
)
from edgezo_runtime.training.replay import replay
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import state_bits


def verdicts(losses: np.ndarray, watch: LossMonitor | None = None) -> list[str]:
    watch = watch or LossMonitor()
    found = []
    for loss in losses:
        watch, verdict = watch.see(float(loss))
        found.append(verdict)
    return found


def noisy(levels: np.ndarray, spread: float = 0.1) -> np.ndarray:
    return levels + spread * np.random.default_rng(0).normal(size=len(levels))


def test_a_run_that_learns_is_left_alone() -> None:
    found = verdicts(noisy(np.linspace(1.2, 0.4, 3 * WINDOW)))
    assert "diverged" not in found
    assert "plateau" not in found
    assert found.count("good") > 10


def test_divergence_is_noticed_within_a_few_steps() -> None:
    levels = np.concatenate([np.full(100, 0.8), np.full(50, 2.0)])
    found = verdicts(noisy(levels))
    first = found.index("diverged")
    assert 100 <= first < 110


def test_noise_alone_is_no_divergence() -> None:
    for seed in range(20):
        losses = 1 + 0.3 * np.random.default_rng(seed).normal(size=1000)
        assert "diverged" not in verdicts(losses)


def test_nothing_is_said_before_the_loss_has_settled() -> None:
    assert verdicts(np.array([1, 1e6, 1, 1e6, 1, 1])) == [""] * 6
    assert SETTLED > 6


def test_a_plateau_is_told_once_a_window() -> None:
    found = verdicts(noisy(np.full(3 * WINDOW, 0.7)))
    places = [index for index, verdict in enumerate(found) if verdict == "plateau"]
    assert set(places) <= {2 * WINDOW - 1, 3 * WINDOW - 1}
    assert places


def test_a_return_halves_the_rate_and_remembers_the_best() -> None:
    watch = LossMonitor()
    for loss in noisy(np.full(50, 0.8)):
        watch, _ = watch.see(loss)
    after = watch.rolled_back()
    assert (after.factor, after.returns, after.best) == (0.5, 1, watch.best)
    assert after.seen == 0


# --- in a run ---

HOT = TuneConfig(
    modules="all",
    steps=60, max_time_s=0, batch_size=8, blocks="all", scope="all", lr=3e3, eps=0.1,
    lr_schedule="constant", horizon=0, save_every=17,
)  # fmt: skip


def rows(bundle):
    return random_set("labels", (4, 7, 5, 3, 6, 4, 8, 5), bundle.manifest.tokenizer.pad_id)


@pytest.mark.slow
def test_a_run_that_diverges_goes_back_and_slows_down(bundle, tmp_path) -> None:
    with Tuner.open(bundle, rows(bundle), HOT, tmp_path / "run") as tuner:
        reports = list(tuner)
    events = [text for report in reports for text in report.events]
    assert any("learning rate halved" in text for text in events)
    assert reports[-1].lr == reports[0].lr * 0.5 ** sum("halved" in text for text in events)
    unguarded = dataclasses.replace(HOT, rollback=False)
    with Tuner.open(bundle, rows(bundle), unguarded, tmp_path / "free") as tuner:
        free = list(tuner)
    assert np.mean([r.loss for r in reports[-10:]]) < np.mean([r.loss for r in free[-10:]])


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_hopeless_run_ends_with_the_reason(bundle, tmp_path, monkeypatch, snapshot) -> None:
    """Pins a run that went on with a snapshot, and could not even be opened without one."""
    config = dataclasses.replace(HOT, steps=500)
    tuner = Tuner.open(bundle, rows(bundle), config, tmp_path / "run")
    estimate = tuner.run.probes.estimate

    def not_finite(*args):
        estimate(*args)
        raise DivergedError("loss nan is not finite")

    monkeypatch.setattr(tuner.run.probes, "estimate", not_finite)
    before = tuner.adapter()
    with tuner:
        for _ in range(2):  # nor does it go on when it is asked again
            with pytest.raises(DivergedError, match="step 9: diverged for the 9th time"):
                list(tuner)
            assert tuner.step_number == MOST_RETURNS + 1
        if snapshot:
            tuner.snapshot()
    for name, value in tuner.adapter().items():
        np.testing.assert_array_equal(value, before[name])
    assert GOOD_EVERY < WINDOW
    monkeypatch.undo()
    with Tuner.open(bundle, rows(bundle), config, tmp_path / "run") as again:
        assert state_bits(again.run.state) == state_bits(tuner.run.state)
        with pytest.raises(DivergedError, match="step 9: diverged for the 9th time"):
            again.step()
    found = replay(bundle, tuner.run.folder.journal).state
    assert state_bits(found) == state_bits(tuner.run.state)
    assert "step 9: diverged" in found.hopeless
