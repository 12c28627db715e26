"""Examples that come while a run is open, and those who wait for them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgezo_runtime.app.events import Event, ExamplesEvent
from edgezo_runtime.app.more_examples import MoreExamples
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import DataError
from tests.runtime.app_runs import opened

pytestmark = pytest.mark.usefixtures("unsynced")

ROW = {"text": "w30 w31", "label": 1}


def test_what_is_added_is_told(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path) as tuner:
        told: list[Event] = []
        tuner.listen(told.append)
        assert tuner.add([ROW, ROW]) == 10
        assert told == [ExamplesEvent(0, 2, 10)]


def test_rows_longer_than_planned_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path) as tuner:
        short = MoreExamples(tuner.run, tuner.run_events, tuner._answerer, longest=2)
        with pytest.raises(DataError, match="planned for 2"):
            short.add([ROW])
        assert len(tuner.examples) == 8


def test_waiting_ends_with_time_a_stop_or_a_step_that_is_left(
    bundle: Bundle, tmp_path: Path
) -> None:
    with opened(bundle, tmp_path) as tuner:
        assert tuner.wait_for_examples(0)  # six steps are left
        list(tuner)
        assert not tuner.wait_for_examples(0.01)
        found: list[bool] = []
        waiting = threading.Thread(target=lambda: found.append(tuner.wait_for_examples(30)))
        waiting.start()
        tuner.stop()
        waiting.join(10)
        assert found == [False]
