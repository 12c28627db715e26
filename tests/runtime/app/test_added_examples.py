"""Examples that are added to a run, and who waits for them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edgezo_runtime.app.added_examples import AddedExamples
from edgezo_runtime.app.events import ExamplesEvent
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import EdgezoError
from tests.runtime.growing_runs import slice_of
from tests.runtime.tuner_runs import BASE

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
