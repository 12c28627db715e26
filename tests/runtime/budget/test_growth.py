"""Plans that are carried over to heavier rows, with the formula worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.budget.candidates import Choice
from edgezo_runtime.budget.growth import Growth
from edgezo_runtime.budget.ledger import budget_for
from edgezo_runtime.budget.memory_model import MemoryModel
from edgezo_runtime.budget.planner import Planner
from edgezo_runtime.budget.tuning_workload import TuningWorkload
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.heavy_batches import RowSizes
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.memory_relief import Reservation
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.training.run import Run
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import unstarted

MB = 10**6
CONFIG = TuneConfig(method="zo-sgd", steps=3, max_time_s=0, batch_size=4, lr=0.01, eps=0.01)
RESIDENT = (Limits(2, 16), frozenset[int]())
STREAMED = (Limits(1, 16), frozenset({0, 1}))
PEAKS = {RESIDENT: 100 * MB, STREAMED: 60 * MB}


@pytest.fixture
def run(exported: Any, tmp_path: Path) -> Run:
    bundle = exported("llama").bundle("int8").bundle
    rows = random_set("completion", (4, 7, 5, 3), bundle.manifest.tokenizer.pad_id)
    return unstarted(Engine(bundle), rows, CONFIG, RunFolder(tmp_path / "run")).run


@pytest.fixture
def growth(run: Run) -> Growth:
    sizes = RowSizes.of(run.examples, 4)
    return Growth(
        run=run,
        others=(),
        sizes=sizes,
        carried=1.1,
        passes={RESIDENT: 20 * MB, STREAMED: 5 * MB},
        planned=MemoryModel.of(run, (), sizes),
        peaks=PEAKS,
        reservation=Reservation(7 * MB, PEAKS),
    )


def test_rows_like_the_planned_ones_change_nothing(growth: Growth) -> None:
    assert growth.with_rows(random_set("completion", (7, 2), 0), 4) is growth
    assert growth.reservation.peak(RESIDENT) is not None
    assert growth.smallest_bytes == budget_for(60 * MB)


def test_longer_rows_take_more_by_the_formula(growth: Growth, run: Run) -> None:
    """What passes were measured to take, in the proportion of the formula, and a tenth."""
    longer = growth.with_rows(random_set("completion", (50,), 0), 4)
    assert longer.sizes == RowSizes(4, 50, 3)
    formula = MemoryModel.of(run, (), longer.sizes)
    for way, passes in growth.passes.items():
        limits, streams = way[0], bool(way[1])
        ratio = formula.activations(limits, streams=streams) / growth.planned.activations(
            limits, streams=streams
        )
        assert ratio > 1.01  # scoring a vocabulary takes most here
        expected = PEAKS[way] + passes * (1.1 * ratio - 1)
        assert longer.reservation.peaks[way] == pytest.approx(expected, abs=1)
    assert longer.reservation.anonymous_bytes == 7 * MB
    assert longer.smallest_bytes == budget_for(longer.reservation.peaks[STREAMED])
    assert longer.with_rows(random_set("completion", (50, 9), 0), 4) is longer
    assert (
        longer.with_rows(random_set("completion", (60,), 0), 4).reservation.peaks[RESIDENT]
        > (longer.reservation.peaks[RESIDENT])
    )


def test_more_scored_tokens_take_more(growth: Growth) -> None:
    more = growth.with_rows(random_set("completion", (7,), 0, scored=6), 4)
    assert more.sizes.scored == 6
    assert more.reservation.peaks[RESIDENT] > PEAKS[RESIDENT]


def test_a_fuller_batch_keeps_more_workers_busy(growth: Growth, run: Run) -> None:
    way = (Limits(8, 16), frozenset[int]())
    wide = Growth(
        run, (), RowSizes.of(run.examples, 2), 1.1, {way: MB},
        MemoryModel.of(run, (), RowSizes.of(run.examples, 2)), {way: MB}, growth.reservation,
    )  # fmt: skip
    more = wide.with_rows(random_set("completion", (3, 3), 0), 4).reservation.peaks[way]
    assert more == pytest.approx(1.1 * 2 * MB, rel=1e-2)


def test_a_plan_reserves_for_its_own_rows(run: Run) -> None:
    workload = TuningWorkload(run, 1000 * MB, (), 32, (0, 0, 0))
    planner = Planner(workload)
    growth = workload.growth(planner)
    choice: Choice = workload.choices()[0]
    way = (choice.limits, choice.streamed)
    assert growth.reservation.peaks[way] == planner.total(choice)
    assert growth.passes[way] == planner.passes(choice)
    assert growth.sizes == RowSizes(4, 7, 3)
