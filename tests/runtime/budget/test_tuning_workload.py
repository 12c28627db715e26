"""The ledger of a tuning run with blocks and pages of round sizes, and what its refusals advise."""

from __future__ import annotations

import dataclasses
import types
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.budget.candidates import Choice
from edgezo_runtime.budget.ledger import Ledger, VocabularyPages
from edgezo_runtime.budget.memory_model import BackwardMemoryModel, MemoryModel
from edgezo_runtime.budget.planner import Planner
from edgezo_runtime.budget.tuning_workload import TuningWorkload
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
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
    """On the two rows that tell what any number of rows take: they fill a chunk of 16 tokens."""
    asked: list[Any] = []
    monkeypatch.setattr(
        run.evaluator, "rehearse", lambda *args, **options: asked.append((args, options))
    )
    given = workload(run)
    rehearsal = given.rehearsal(streaming(chunk_tokens=16), BASE)
    assert asked == []
    rehearsal.run()
    ((args, options),) = asked
    rows = options.pop("rows")
    assert (args, options) == ((), {"alone": True, "part": "losses"})
    assert rows.lengths().tolist() == [7, 5, 4, 3][: len(rows)]
    telling = given.formula.for_rows(7).telling_rows(Limits(1, 16), streams=False)
    assert len(rows) == min(4, telling)
    assert (rehearsal.extra_bytes, rehearsal.workers, rehearsal.shared_bytes) == (0, 1, 0)
    assert rehearsal.others == ()  # no step is first-order


def test_evaluations_are_rehearsed_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        run.evaluator, "rehearse", lambda *args, **options: asked.append((args, options))
    )
    others = [random_set("labels", (9, 8), 0)]
    given = TuningWorkload(run, 1000 * MB, others, 32, (0, 0, 0))
    rehearsal = given.rehearsal(streaming(), BASE)
    for trial in (rehearsal, *rehearsal.others):
        trial.run()
    assert [options["part"] for _, options in asked] == ["evaluations", "losses"]
    rows = given.formula.telling_rows(Limits(1), streams=False)
    options = {"max_rows": rows, "alone": True, "part": "evaluations"}
    assert asked[0] == ((others, 32), options)


def needs_by_hand(
    formula: MemoryModel, examples: ExampleSet, order: list[list[int]], counts: list[int]
) -> list[int]:
    """The computed bytes of so many rows of every batch, those that need the most."""
    each = [
        formula.groups * int(length) * formula.bytes_per_token
        + min(256, row.places.size) * formula.scored_bytes
        for row, length in zip(examples, examples.lengths(), strict=True)
    ]
    return [
        sum(sorted((each[i] for i in batch), reverse=True)[:count])
        for batch, count in zip(order, counts, strict=True)
    ]


@pytest.mark.parametrize("steps", [2, 30])
def test_the_heaviest_batches_of_the_order_are_rehearsed(
    exported: Any, tmp_path: Any, steps: int
) -> None:
    """Not the heaviest rows of the set: no batch has them all. Every batch that comes close to the
    largest need is exceeded by a rehearsed one in tokens, and by one in scored tokens."""
    bundle = exported("llama").bundle("int8").bundle
    sizes = [int(size) for size in np.random.default_rng(1).integers(3, 40, 64)]
    rows = random_set("completion", sizes, bundle.manifest.tokenizer.pad_id, scored=9)
    config = replace(CONFIG, steps=steps, seed=5)
    run = unstarted(Engine(bundle), rows, config, RunFolder(tmp_path / "run")).run
    given = TuningWorkload(run, 1000 * MB, (), 32, (0, 0, 0))
    order = [run.probes.batches.indices(step) for step in range(steps)]
    for limits, streams in ((Limits(2, 16), False), (Limits(1, 256), False), (Limits(1), True)):
        chosen = given.telling_batches(limits, streams=streams)
        longest = [max(int(rows.lengths()[i]) for i in batch) for batch in order]
        counts = [4 if streams else min(4, limits.chunk_tokens // (2 * most)) for most in longest]
        counts = [max(count, limits.workers) for count in counts]
        needs = needs_by_hand(given.formula, rows, order, counts)
        assert max(needs) == max(needs[batch] for batch in chosen)
        for values in (rows.lengths(), [row.places.size for row in rows]):
            tops = [
                sum(sorted((int(values[i]) for i in batch), reverse=True)[:count])
                for batch, count in zip(order, counts, strict=True)
            ]
            pairs = zip(tops, needs, strict=True)
            close = [top for top, need in pairs if need >= 7 / 8 * max(needs)]
            assert max(close) <= max(tops[batch] for batch in chosen)
    trials = given.rehearsal(Choice(Limits(1, 16), frozenset(), 1.0), BASE)
    rehearsed = [trial.run.keywords["rows"] for trial in (trials, *trials.others)]  # type: ignore[attr-defined]
    chosen = given.telling_batches(Limits(1, 16), streams=False)
    assert [int(part.lengths().max()) for part in rehearsed] == [
        max(int(rows.lengths()[i]) for i in order[batch]) for batch in chosen
    ]
    assert [trial.afresh for trial in (trials, *trials.others)] == [
        n > 0 for n in range(len(chosen))
    ]


BACK = BackwardMemoryModel(
    tokens=256, telling_rows=2, weights=1, kept=50, sums=60, parts=4, past=0, waiting=70
)


@pytest.mark.parametrize(("parts", "workers", "holes"), [(2, 2, 0.0), (4, 2, 1 / 12), (1, 1, 0)])
def test_gradients_are_rehearsed_by_themselves(
    run: Run, monkeypatch: pytest.MonkeyPatch, parts: int, workers: int, holes: float
) -> None:
    """A batch of four rows has one, two or four parts: workers without a part take nothing."""
    asked: list[Any] = []
    monkeypatch.setattr(run.evaluator, "rehearse", lambda *_, **options: asked.append(options))
    given = workload(run)
    monkeypatch.setattr(given, "_parts", lambda back, batch: [9] * parts)
    back = replace(BACK, parts=parts)
    given.formula = replace(given.formula, back=back)
    (gradient,) = given.rehearsal(Choice(Limits(2), frozenset(), 1.0), BASE).others
    gradient.run()
    assert asked[0]["part"] == "gradient"
    assert (gradient.workers, gradient.holes) == (workers, holes)
    assert gradient.extra_bytes == workers * 50 + 60
    (streamed,) = given.rehearsal(Choice(Limits(2), frozenset({0}), 1.0), BASE).others
    assert streamed.holes == 0  # the parts of a wave are about equally long
    monkeypatch.setattr(given, "_parts", lambda back, batch: [3, 9, 2])
    (unequal,) = given.rehearsal(Choice(Limits(2), frozenset(), 1.0), BASE).others
    assert unequal.workers == given.formula.unequal([9, 3], 2) < 2
    assert unequal.holes == 1 / 12  # three parts for two workers


def test_the_parts_of_a_batch(run: Run) -> None:
    """Rows of 7, 5, 4 and 3 tokens go back together; of last tokens two at a time."""
    given = workload(run)
    assert given._parts(BACK, 0) == [4 * 8]  # the longest row is padded to an even number
    lengths = given.heavy.lengths[0].tolist()
    answers = replace(BACK, token_bytes=2**24)
    assert given._parts(answers, 0) == [2 * max(lengths[:2]), 2 * max(lengths[2:])]


def test_one_worker_is_rehearsed_for_all(run: Run) -> None:
    """What stages of two workers coincided made 200 MB of one rehearsal and 220 of the next."""
    given = workload(run)
    both = given.rehearsal(Choice(Limits(2), frozenset(), 1.0), BASE)
    assert (both.workers, both.shared_bytes) == (2, 0)
    many = given.rehearsal(Choice(Limits(64), frozenset(), 1.0), BASE)
    assert many.workers == given.formula.rows == 4
    streamed = given.rehearsal(Choice(Limits(2), frozenset({1}), 1.0), BASE)
    assert streamed.shared_bytes == (7 + 5 + 4 + 3) * 2 * given.formula.state_bytes_per_token


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
