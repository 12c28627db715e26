"""The plan: what it chooses, what it promises, and that a rehearsal leaves a run as it was."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.budget import plan as module
from edgezo_runtime.budget import planner
from edgezo_runtime.budget.candidates import Choice
from edgezo_runtime.budget.ledger import Ledger, VocabularyPages
from edgezo_runtime.budget.plan import make_plan
from edgezo_runtime.budget.planner import Planner
from edgezo_runtime.budget.tuning_workload import TuningWorkload
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BudgetStopError, DivergedError, DoesNotFitError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.system.sizes import parse_size
from edgezo_runtime.training.run import Run
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import unstarted

MB = 10**6
PROCESS, BLOCK, COUNT, A_TOKEN = 100 * MB, 50 * MB, 10, 200_000
CONFIG = TuneConfig(
    steps=3, max_time_s=0, batch_size=4, blocks="all", modules="all", lr=0.01, eps=0.01
)


@pytest.fixture
def run(exported, tmp_path) -> Run:
    bundle = exported("llama").bundle("int8").bundle
    rows = random_set("labels", (4, 7, 5, 3, 6, 4, 8, 5), bundle.manifest.tokenizer.pad_id)
    return unstarted(Engine(bundle), rows, CONFIG, RunFolder(tmp_path / "run")).run


class Machine:
    """A process of 100 MB and a model of ten blocks of 50 MB. Its passes take 200 kB per token and
    worker: twice what the formula says."""

    def __init__(self, run: Run, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = run
        self.available = 10**12
        self.rehearsed: list[Limits] = []
        workload = TuningWorkload(run, budget, (), 32, (0, 0, 0))
        workload.blocks = [BLOCK] * COUNT
        workload.pages = VocabularyPages(0, 0, 0, 0)
        workload.formula = dataclasses.replace(
            workload.formula,
            bytes_per_token=A_TOKEN // 2,
            kept_bytes_per_token=0,
            rows=10**9,
            longest=1,
            scorer=0,
            past=0,
            hidden=0,
        )
        self.workload = workload
        monkeypatch.setattr(planner, "anonymous_bytes", lambda: 0)
        monkeypatch.setattr(planner, "resident_bytes", lambda: PROCESS)
        monkeypatch.setattr(planner, "available_bytes", lambda: self.available)
        monkeypatch.setattr(planner, "PeakSampler", lambda: self)
        monkeypatch.setattr(planner.ENVIRONMENT, "threads", 4)
        monkeypatch.setattr(run.evaluator, "rehearse", lambda *args, **options: None)
        monkeypatch.setattr(run.engine, "give_back", lambda: None)

    def plan(self) -> module.Plan:
        return module.plan_workload(self.workload)

    def __enter__(self) -> types.SimpleNamespace:
        limits = self.run.engine.limits
        self.rehearsed.append(limits)
        return types.SimpleNamespace(peak=A_TOKEN * limits.chunk_tokens)  # one worker at a time

    def __exit__(self, *error: object) -> None:
        pass


def plan_for(run: Run, budget: int, monkeypatch: pytest.MonkeyPatch) -> module.Plan:
    return Machine(run, budget * MB, monkeypatch).plan()


def test_enough_for_everything(run, monkeypatch) -> None:
    """100 MB and ten blocks of 50 MB; chunks of 256 tokens by four workers take four
    times 51.2 MB."""
    found = plan_for(run, 1000, monkeypatch)
    assert found.ledger == Ledger(
        PROCESS - run.state.nbytes, 0, 0, run.state.nbytes, 0, 0, 500 * MB, 204_800_000
    )
    assert found.predicted_bytes == 804_800_000
    assert found.reserve_bytes == 195_200_000
    assert found.choice.streamed == frozenset()
    assert found.choice.limits == Limits(4)
    assert found.gains == ()


@pytest.mark.parametrize("budget", [260, 300, 400, 500, 600, 700])
def test_the_fastest_that_fits(run, monkeypatch, budget) -> None:
    machine = Machine(run, budget * MB, monkeypatch)
    found = machine.plan()
    assert found.predicted_bytes <= budget * MB * 24 / 25
    measured = found.ledger
    faster = [choice for choice in machine.workload.choices() if choice.cost < found.choice.cost]
    assert faster
    for choice in faster:
        activations = A_TOKEN * choice.limits.chunk_tokens * choice.limits.workers
        resident = COUNT - len(choice.streamed) + bool(choice.streamed)
        assert PROCESS + 1.1 * activations + BLOCK * resident > budget * MB * 24 / 25
    limits = found.choice.limits
    assert measured.activations == A_TOKEN * limits.chunk_tokens * limits.workers


@pytest.mark.parametrize("budget", [260, 400, 600])
def test_gains_are_what_a_plan_for_more_would_be(run, monkeypatch, budget) -> None:
    found = plan_for(run, budget, monkeypatch)
    assert found.gains
    needs = [gain.budget_bytes for gain in found.gains]
    assert needs == sorted(needs)
    assert needs[0] > budget * MB
    for gain in found.gains:
        more = Machine(run, gain.budget_bytes, monkeypatch).plan()
        assert more.choice.cost <= gain.choice.cost
        assert gain.speedup == pytest.approx(found.choice.cost / gain.choice.cost)


def test_too_small_names_the_smallest_that_does(run, monkeypatch) -> None:
    with pytest.raises(DoesNotFitError, match="a smaller model") as caught:
        plan_for(run, 100, monkeypatch)
    named = parse_size(str(caught.value).split("give `budget='")[1].split("'")[0])
    found = Machine(run, named, monkeypatch).plan()
    assert (found.choice.limits.workers, found.choice.limits.chunk_tokens) == (1, 16)
    assert len(found.choice.streamed) == COUNT
    with pytest.raises(DoesNotFitError):
        Machine(run, named * 98 // 100, monkeypatch).plan()


def test_what_took_more_before_cannot_be_undone(run, monkeypatch) -> None:
    machine = Machine(run, 800 * MB, monkeypatch)
    machine.workload.start_bytes = 900 * MB
    with pytest.raises(DoesNotFitError, match="reading libraries and data alone took 900 MB"):
        machine.plan()
    monkeypatch.setattr(module, "peak_rss_bytes", lambda: 905 * MB)
    machine = Machine(run, 1000 * MB, monkeypatch)
    machine.workload.start_bytes = 900 * MB
    found = machine.plan()
    assert found.predicted_bytes == 905 * MB
    assert found.smallest_bytes == 900 * MB


def test_a_machine_that_is_full_is_not_the_budgets_fault(run, monkeypatch) -> None:
    machine = Machine(run, 1000 * MB, monkeypatch)
    machine.available = 1
    with pytest.raises(DoesNotFitError, match="left to this process by the machine"):
        machine.plan()
    assert machine.rehearsed == []


def test_a_rehearsal_that_has_to_stop_does_not_count(run, monkeypatch) -> None:
    machine = Machine(run, 1000 * MB, monkeypatch)

    def stop_large(*args: object, **options: object) -> None:
        if run.engine.limits.workers > 1:
            raise BudgetStopError("more than was foreseen")

    monkeypatch.setattr(run.evaluator, "rehearse", stop_large)
    assert machine.plan().choice.limits.workers == 1


def test_a_model_that_is_broken_is_left_to_the_run(run, monkeypatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise DivergedError("a hidden state of nan")

    machine = Machine(run, 1000 * MB, monkeypatch)
    monkeypatch.setattr(run.evaluator, "rehearse", fail)
    assert machine.plan().choice.streamed == frozenset()


# --- on a real bundle ---


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zo-sgd", "auto", "rloo", "block-wise"])
@pytest.mark.parametrize("scope", ["all", "answer"])
def test_planning_changes_no_bit_of_a_run(exported, tmp_path, method, scope) -> None:
    bundle = exported("llama").bundle("int8").bundle
    rows = random_rows(8, 6, bundle.manifest.model.vocab_size, (5, 11))
    config = dataclasses.replace(CONFIG, method=method, scope=scope)
    with Tuner.open(bundle, rows, config, tmp_path / "plain") as tuner:
        list(tuner)
        expected = tuner.adapter()
    with Tuner.open(bundle, rows, config, tmp_path / "planned", budget=8 * 10**9) as tuner:
        assert tuner.step_number == 0
        list(tuner)
        found = tuner.adapter()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_parts_of_a_real_plan(exported, tmp_path) -> None:
    bundle = exported("llama").bundle("int8").bundle
    rows = random_rows(8, 6, bundle.manifest.model.vocab_size)
    run = unstarted(Engine(bundle), rows, CONFIG, RunFolder(tmp_path / "run")).run
    found = make_plan(run, 8 * 10**9, others=[rows], process_bytes=10 * MB, data_bytes=5 * MB)
    parts = found.ledger
    assert (parts.process, parts.data) == (10 * MB, 5 * MB)
    model = run.engine.model
    assert parts.blocks == sum(model.block_bytes(index) for index in range(2))
    copy = sum(value.nbytes for value in run.state.theta.values())  # that is evaluated
    assert parts.adapter == run.state.nbytes + copy > copy
    assert 0 < found.smallest_bytes <= found.predicted_bytes * 25 // 24 + 1
    assert found.as_json()["ledger"]["reserve"] == 8 * 10**9 - found.predicted_bytes
    assert not (tmp_path / "run").exists()
    assert run.engine.reliefs == []


def test_a_budget_below_the_process_is_refused(run) -> None:
    with pytest.raises(DoesNotFitError, match="process"):
        make_plan(run, 10 * MB)


def test_state_is_what_the_run_keeps(run) -> None:
    theta = sum(value.nbytes for value in run.state.theta.values())
    trained = sum(value.nbytes for name, value in run.state.theta.items() if "lora_B" in name)
    # the average, and a copy of both to go back to; sgd keeps nothing
    assert run.state.nbytes == theta + 3 * trained
    momentum = dataclasses.replace(CONFIG, rule="momentum", average=0)
    other = unstarted(run.engine, run.examples, momentum, run.folder).run
    assert other.state.nbytes == theta + 5 * trained  # an average is made, if not used


@pytest.mark.parametrize("streams", [False, True])
def test_a_rehearsal_stops_where_more_rows_tell_no_more(
    exported, tmp_path, monkeypatch, streams
) -> None:
    """4,096 rows would take an hour on a large model; so many as keep the workers busy do."""
    bundle = exported("llama").bundle("int8").bundle
    rows = random_set("labels", (60,) * 4096, bundle.manifest.tokenizer.pad_id)
    config = dataclasses.replace(CONFIG, batch_size=4096)
    run = unstarted(Engine(bundle), rows, config, RunFolder(tmp_path / "run")).run
    seen = []
    monkeypatch.setattr(
        run.engine,
        "score",
        lambda batch, *others, **options: seen.append(batch.input_ids.shape[0]),
    )
    choice = Choice(Limits(2, wave_bytes=1 << 20), frozenset({0} if streams else ()), 1.0)
    Planner(TuningWorkload(run, 8 * 10**9, (), 32, (0, 0, 0))).measure(choice)
    hidden = 4 * bundle.manifest.model.hidden_size
    tokens = 2 * 2 * choice.limits.chunk_tokens + (streams and (1 << 20) // hidden)
    assert max(seen) == -(-tokens // 60)


def test_what_passes_take_is_reserved_for_every_way_to_run(run, monkeypatch) -> None:
    machine = Machine(run, 500 * MB, monkeypatch)
    found = machine.plan()
    assert found.growth.reservation.anonymous_bytes == 0
    ways = {(choice.limits, choice.streamed) for choice in machine.workload.choices()}
    assert found.growth.reservation.peaks.keys() == ways
    chosen = found.choice.limits, found.choice.streamed
    assert found.growth.reservation.peaks[chosen] == found.predicted_bytes
    found.apply(run.engine)
    assert run.engine.reservation is found.growth.reservation
