"""Examples that are added to a run, and who waits for them."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import pytest

from edgezo_runtime.app.added_examples import AddedExamples
from edgezo_runtime.app.events import ExamplesEvent
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import DataError, EdgezoError
from tests.runtime.app_runs import opened
from tests.runtime.growing_runs import slice_of
from tests.runtime.tuner_runs import BASE

FIRST_ORDER = TuneConfig(steps=2, max_time_s=0, batch_size=4, first_order_lr=0.01)

pytestmark = pytest.mark.usefixtures("unsynced")


def added(tuner: Tuner, longest: int | None = None) -> AddedExamples:
    """Adds to the run of a tuner, whose plan covers so many tokens."""
    return AddedExamples(tuner.run, tuner.run_events, tuner._answerer, longest)


def test_what_is_added_is_told_once_and_counts(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples.first(4), BASE, tmp_path) as tuner:
        stream = tuner.events()
        assert added(tuner).add(slice_of(examples, 4, 7)) == 7
        assert stream.get(0) == ExamplesEvent(0, 3, 7)
        assert stream.get(0) is None
        assert tuner.status.examples == 7
        with pytest.raises(EdgezoError):  # longer than the plan covers
            added(tuner, longest=3).add(slice_of(examples, 7, 8))
        assert len(tuner.examples) == 7


def test_whoever_waits_is_woken_by_the_end_of_the_run(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        waiting = added(tuner)
        assert waiting.wait_for_step(0)
        list(tuner)
        started = time.monotonic()
        assert not waiting.wait_for_step(0.02)
        assert time.monotonic() - started >= 0.02
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(waiting.wait_for_step()))
        thread.start()
    waiting.wake()
    thread.join(10)
    assert found == [False]


def test_longer_rows_are_reserved_for_before_a_step_takes_them(
    bundle: Bundle, tmp_path: Path
) -> None:
    """A plan was for the rows that the run began with, and steps on longer ones passed it."""
    with opened(bundle, tmp_path, budget="4GB", max_seq=60, config=FIRST_ORDER) as tuner:
        assert tuner.plan is not None
        planned = tuner.plan.growth.reservation
        assert tuner.run.engine.reservation is planned
        tuner.add([{"text": "w1 w2", "label": 0}])
        assert tuner.run.engine.reservation is planned
        tuner.add([{"text": " ".join(["w9"] * 50), "label": 0}])
        more = tuner.run.engine.reservation
        assert more is not None
        assert more.texts_bytes == planned.texts_bytes
        grown = [more.peaks[way] - peak for way, peak in planned.peaks.items()]
        assert min(grown) >= 0
        assert max(grown) > 0  # a pass for losses was planned for rows to come, and may take more
        list(tuner)
        assert not tuner.run.engine.reliefs


def test_rows_that_would_pass_the_budget_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path, budget="4GB", max_seq=60, config=FIRST_ORDER) as tuner:
        assert tuner.plan is not None
        adds = AddedExamples(
            tuner.run, tuner.run_events, tuner._answerer, 60,
            dataclasses.replace(tuner.plan, budget_bytes=tuner.plan.growth.smallest_bytes),
        )  # fmt: skip
        count = len(tuner.examples)
        assert adds.add([{"text": "w1 w2", "label": 0}]) == count + 1
        with pytest.raises(
            DataError, match=r"4 examples of up to 5\d tokens; such steps may take .*; open the run"
        ):
            adds.add([{"text": " ".join(["w9"] * 50), "label": 0}])
        assert len(tuner.examples) == count + 1
