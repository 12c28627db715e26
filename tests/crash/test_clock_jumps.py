"""Clocks that jump: no bit of a run depends on the time of day, and a leap forward only ends it."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.journal.journal import read_journal
from tests.crash.short_runs import CONFIGS, finish
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES

pytestmark = pytest.mark.usefixtures("unsynced")

YEAR_S = 365 * 86400.0


def day_clock(seed: int) -> Callable[[], float]:
    """A time of day that was never set: anywhere in sixty years, each time it is read."""
    generator = random.Random(seed)
    return lambda: generator.uniform(0, 60 * YEAR_S)


def leaping(seed: int) -> Callable[[], float]:
    """A steady clock that leaps by up to a day, as one that counts while the machine sleeps."""
    generator = random.Random(seed)
    now = itertools.accumulate(generator.choice((0.0, 0.001, 86400.0)) for _ in itertools.count())
    return lambda: next(now)


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_no_bit_depends_on_a_clock(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    expected = finish(bundle, method, tmp_path / "whole")
    monkeypatch.setattr(time, "time", day_clock(0))
    monkeypatch.setattr(time, "monotonic", leaping(1))
    assert finish(bundle, method, tmp_path / "jumps") == expected


def test_files_from_another_time_are_resumed(bundle: Bundle, tmp_path: Path) -> None:
    expected = finish(bundle, "adam", tmp_path / "whole")
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    with Tuner.open(bundle, examples, CONFIGS["adam"], tmp_path / "run", threads=1) as tuner:
        for _ in range(3):
            tuner.step()
    dates = (4e9, 0.0, 1e9)  # the snapshot older than the journal, and both in the future
    for path, date in zip(sorted((tmp_path / "run").iterdir()), itertools.cycle(dates)):
        os.utime(path, (date, date))
    assert finish(bundle, "adam", tmp_path / "run", at_least=3) == expected


def test_a_leap_ends_a_timed_run_and_a_new_clock_does_not_give_time_back(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIGS["two-point"], steps=0, max_time_s=3600.0)
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    now = 1e6
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Tuner.open(bundle, examples, config, tmp_path, threads=1) as tuner:
        tuner.step()
        assert not tuner.done

    def asleep() -> float:
        nonlocal now
        now += 1200.0
        return now

    with Tuner.open(bundle, examples, config, tmp_path, threads=1) as tuner:
        monkeypatch.setattr(time, "monotonic", asleep)
        tuner.step()
        assert tuner.done
        spent = tuner.run.state.elapsed_s
    now = 0.0  # the machine was started again
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Tuner.open(bundle, examples, config, tmp_path, threads=1) as tuner:
        assert tuner.done
        assert tuner.run.state.elapsed_s == pytest.approx(spent, rel=0.5)
    assert [record.step for record in read_journal(tmp_path / "journal.bin").records] == [0, 1]
