"""The ledger of a tuning run with blocks and pages of round sizes, and what its refusals advise."""

from __future__ import annotations

import dataclasses
import types
from dataclasses import replace
from typing import Any

import pytest

from edgezo_runtime.budget.candidates import Choice
from edgezo_runtime.budget.ledger import Ledger, VocabularyPages
from edgezo_runtime.budget.memory_model import BackwardMemoryModel
from edgezo_runtime.budget.planner import Planner
from edgezo_runtime.budget.tuning_workload import TuningWorkload
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BundleError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.training.run import Run
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import unstarted

MB = 10**6
BASE, PASSES = 100 * MB, 9 * MB
CONFIG = TuneConfig(method="zo-sgd", steps=3, max_time_s=0, batch_size=4, lr=0.01, eps=0.01)


@pytest.fixture
def run(exported: Any, tmp_path: Any) -> Run:
    bundle = exported("llama").bundle("int8").bundle
    rows = random_set("labels", (4, 7, 5, 3), bundle.manifest.tokenizer.pad_id)
    return unstarted(Engine(bundle), rows, CONFIG, RunFolder(tmp_path / "run")).run


def workload(run: Run, before: tuple[int, int, int] = (0, 0, 0)) -> TuningWorkload:
    """Four blocks of 10 MB, of which one is fetched at a time, and vocabulary pages of 30 MB."""
    made = TuningWorkload(run, 1000 * MB, (), 32, before)
    made.blocks = [10 * MB] * 4
    made.pages = VocabularyPages(
        prologue=16 * MB, prologue_batch=12 * MB, epilogue=5 * MB, epilogue_whole=20 * MB
    )
    return made


def streaming(*blocks: int, **limits: int) -> Choice:
    return Choice(Limits(1, **limits), frozenset(blocks), 1.0)


def test_all_resident_in_a_process_that_is_not_known(run: Run) -> None:
    state = run.state.nbytes
    ledger = workload(run).ledger(streaming(), PASSES, BASE)
    assert ledger == Ledger(BASE - state, 0, 0, state, 16 * MB, 5 * MB, 40 * MB, PASSES)
    assert workload(run).total(streaming(), PASSES, BASE) == 170 * MB


def test_what_is_known_of_the_process_is_told_apart(run: Run) -> None:
    state = run.state.nbytes
    given = workload(run, (60 * MB, 8 * MB, 140 * MB))
    ledger = given.ledger(streaming(), PASSES, BASE)
    assert (ledger.process, ledger.data, ledger.adapter) == (60 * MB, 8 * MB, state)
    assert ledger.graphs == BASE - 68 * MB - state
    assert ledger.start == 140 * MB
    assert given.total(streaming(), PASSES, BASE) == 170 * MB
    # what was measured before may be more than there is now
    assert given.total(streaming(), PASSES, 10 * MB) == 68 * MB + state + 70 * MB


def test_streamed_blocks_take_turns_with_the_vocabulary(run: Run) -> None:
    """One block of 10 MB at a time: of the embedding's batch 2 MB stay, of the head 8 MB."""
    given = workload(run)
    ledger = given.ledger(streaming(1, 2, 3), PASSES, BASE)
    assert ledger.blocks == 10 * MB + 10 * MB
    assert (ledger.prologue, ledger.epilogue) == (2 * MB, 8 * MB)
    together = given.ledger(streaming(1, 2, 3, fetch_bytes=20 * MB), PASSES, BASE)
    assert together.blocks == 10 * MB + 20 * MB
    assert (together.prologue, together.epilogue) == (0, 0)


def test_a_rehearsal_touches_a_block_of_each_kind(run: Run) -> None:
    kinds = len(run.engine.model.kinds)
    assert workload(run).sampled_bytes == kinds * 10 * MB + 12 * MB + 20 * MB


def test_the_fastest_way_to_run_comes_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgezo_runtime.engine.engine.ENVIRONMENT.threads", 4)
    found = workload(run).choices()
    assert found[0] == Choice(Limits(4), frozenset(), 1.0)
    assert [choice.cost for choice in found] == sorted(choice.cost for choice in found)
    assert len(found) == 3 * 5 * 9
    slowest = found[-1]
    assert (slowest.limits.workers, slowest.limits.chunk_tokens) == (1, 16)
    assert slowest.streamed == {0, 1, 2, 3}


def test_a_rehearsal_is_a_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        run.evaluator, "rehearse", lambda *args, **options: asked.append((args, options))
    )
    given = workload(run)
    rehearsal = given.rehearsal(streaming(), BASE)
    assert asked == []
    rehearsal.run()
    rows = given.formula.telling_rows(Limits(1), streams=False)
    assert asked == [(((), 32), {"max_rows": rows, "alone": True, "part": "losses"})]
    assert (rehearsal.extra_bytes, rehearsal.workers, rehearsal.shared_bytes) == (0, 1, 0)
    assert rehearsal.others == ()  # no step is first-order


BACK = BackwardMemoryModel(
    tokens=32, telling_rows=2, weights=1, kept=50, sums=60, parts=4, past=0, waiting=70
)


@pytest.mark.parametrize(("parts", "workers", "holes"), [(2, 2, 0.0), (4, 2, 1 / 8), (1, 1, 0)])
def test_gradients_are_rehearsed_by_themselves(
    run: Run, monkeypatch: pytest.MonkeyPatch, parts: int, workers: int, holes: float
) -> None:
    """A batch of four rows has one, two or four parts: workers without a part take nothing."""
    asked: list[Any] = []
    monkeypatch.setattr(run.evaluator, "rehearse", lambda *_, **options: asked.append(options))
    given = workload(run)
    back = replace(BACK, parts=parts)
    given.formula = replace(given.formula, back=back)
    (gradient,) = given.rehearsal(Choice(Limits(2), frozenset(), 1.0), BASE).others
    gradient.run()
    assert asked[0]["part"] == "gradient"
    assert (gradient.workers, gradient.holes) == (workers, holes)
    assert gradient.extra_bytes == workers * 50 + 60
    (streamed,) = given.rehearsal(Choice(Limits(2), frozenset({0}), 1.0), BASE).others
    assert streamed.holes == 0  # the parts of a wave are about equally long


def test_one_worker_is_rehearsed_for_all(run: Run) -> None:
    """What stages of two workers coincided made 200 MB of one rehearsal and 220 of the next."""
    given = workload(run)
    both = given.rehearsal(Choice(Limits(2), frozenset(), 1.0), BASE)
    assert (both.workers, both.shared_bytes) == (2, 0)
    many = given.rehearsal(Choice(Limits(64), frozenset(), 1.0), BASE)
    assert many.workers == given.formula.rows == 4
    streamed = given.rehearsal(Choice(Limits(2), frozenset({1}), 1.0), BASE)
    assert streamed.shared_bytes == given.formula.hidden


def test_generated_texts_are_there_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = types.SimpleNamespace(has_answers=True)
    given = workload(run)
    monkeypatch.setattr(run.probes, "objective", answers)
    rehearsal = given.rehearsal(Choice(Limits(2), frozenset({1}), 1.0), BASE)
    assert (rehearsal.workers, rehearsal.shared_bytes) == (1, 0)


@pytest.mark.parametrize(
    ("blocks", "pages", "advice"),
    [(150, 0, "a smaller model"), (0, 600, "label words of one token"), (0, 0, "`max_seq`")],
)
def test_a_refusal_advises_about_the_largest_parts(
    run: Run, blocks: int, pages: int, advice: str
) -> None:
    given = workload(run, (1 * MB, 0, 0))
    given.blocks = [blocks * MB] * 4
    given.pages = VocabularyPages(0, 0, pages * MB, pages * MB)
    planner = Planner(given)
    planner.base = 1 * MB
    text = str(given.refusal(planner, streaming()))
    assert text.startswith("budget 1.00 GB: the smallest that is enough is '")
    assert advice in text


def test_a_weight_that_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgezo_runtime.budget.ledger.read_header", lambda path: {})
    with pytest.raises(BundleError, match="run 'edgezo export --force'"):
        workload(run)


def test_waves_of_first_order_steps_grow_into_spare_room(run: Run) -> None:
    """Five parts of 6 MB: one worker takes them one by one, or in three waves, two, or one."""
    given = workload(run)
    assert given.widened(streaming(0, 1), 10**9) == (streaming(0, 1), 0)  # no step goes back
    back = BackwardMemoryModel(256, 2, 0, 5 * MB, 0, parts=5, past=0, waiting=6 * MB)
    given.formula = dataclasses.replace(given.formula, back=back)
    one = streaming(0, 1, wave_bytes=1)
    assert given.widened(streaming(wave_bytes=1), 10**9) == (streaming(wave_bytes=1), 0)
    for spare, more in ((-1, 0), (5, 0), (6, 6), (11, 6), (12, 12), (23, 12), (24, 24), (99, 24)):
        found, taken = given.widened(one, spare * MB)
        assert taken == more * MB
        assert found.streamed == one.streamed
        assert given.formula.unsampled(found.limits, streams=True) == (6 + more) * MB
        assert back.waves(found.limits) == -(-5 // (1 + more // 6))
