"""The plan of a generation: order of the ways to run, bytes by hand, and a bundle's own."""

from __future__ import annotations

from typing import Any

import pytest

from edgezo_runtime.budget import generation_plan as module
from edgezo_runtime.budget import planner
from edgezo_runtime.budget.candidates import Choice
from edgezo_runtime.budget.generation_plan import (
    GenerationPlan,
    GenerationWorkload,
    plan_generation,
    room_beside,
)
from edgezo_runtime.budget.ledger import FAULT_BYTES, planned_bytes
from edgezo_runtime.budget.memory_model import (
    VOCABULARY_CHUNK,
    bytes_kept_of_token,
    bytes_of_token,
)
from edgezo_runtime.budget.planner import UNMEASURED
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BudgetStopError, DivergedError, DoesNotFitError
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.system.memory_guard import MemoryGuard

MB = 10**6
BASE, BLOCK, HEAD = 100 * MB, 20 * MB, 15 * MB
NEW = GenerationConfig(8)


@pytest.fixture
def generator(exported: Any) -> Generator:
    bundle = exported("llama").bundle("int8").bundle
    engine = Engine(bundle, guard=MemoryGuard(10**12))
    return Generator(engine, TextTokenizer.open(bundle.root, bundle.manifest.tokenizer))


@pytest.fixture
def machine(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(generator, monkeypatch)


class Machine:
    """A process of 100 MB and a model of two blocks of 20 MB and a head of 15 MB. Keys and values
    of a text take 10 MB, and as much again where the attention has them."""

    def __init__(self, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.generator = generator
        self.passes = 1 * MB
        self.rehearsed: list[tuple[Limits, int, bool, int]] = []
        monkeypatch.setattr(module, "peak_rss_bytes", lambda: BASE)
        monkeypatch.setattr(planner, "resident_bytes", lambda: BASE)
        monkeypatch.setattr(planner, "anonymous_bytes", lambda: 0)
        monkeypatch.setattr(planner, "PeakSampler", lambda: self)
        monkeypatch.setattr(generator, "rehearse", self.rehearse)
        monkeypatch.setattr(generator, "text_bytes", lambda prompt, new: 10 * MB)
        monkeypatch.setattr(module, "release_freed", lambda: None)
        monkeypatch.setattr(generator.engine, "give_back", lambda: None)
        monkeypatch.setattr(generator.engine, "limits", Limits(2))
        monkeypatch.setattr(generator.engine.model, "block_bytes", lambda index: BLOCK)
        monkeypatch.setattr(GenerationWorkload, "_vocabulary", lambda workload: HEAD)
        monkeypatch.setattr(GenerationWorkload, "computed", self.computed)

    @staticmethod
    def computed(workload: GenerationWorkload, choice: Choice) -> int:
        return 100_000 * choice.limits.workers * choice.limits.chunk_tokens

    def plan(self, budget: int, texts: int = 1) -> GenerationPlan:
        generator = self.generator
        params = generator.engine.bundle.trainables()
        return plan_generation(generator, [4] * texts, params, NEW, budget)

    def rehearse(self, prompt: int, rows: int, params: object) -> None:
        engine = self.generator.engine
        self.rehearsed.append((engine.limits, len(engine.streamed), engine.guard is not None, rows))

    def __enter__(self) -> Machine:
        return self

    @property
    def peak(self) -> int:
        """Of passes, and of keys and values of the prompts in the one block of a kind."""
        return self.passes + self.rehearsed[-1][3] * 4 * 4 * 64

    def __exit__(self, *error: object) -> None:
        pass


def budget_of(planned: int) -> int:
    """A budget of which so much is left without the reserve."""
    budget = planned * 25 // 24
    assert planned_bytes(budget) >= planned
    return budget


def test_all_resident_where_it_fits(machine: Machine) -> None:
    """100 MB, two blocks, the head and passes of 51.2 MB; the rest is for keys and values."""
    found = machine.plan(budget_of(300 * MB))
    fixed = BASE + 2 * BLOCK + HEAD + 51_200_000
    assert found.limits == Limits(2)
    assert found.streamed == frozenset()
    assert found.fixed_bytes == fixed
    assert found.cache_bytes == (300 * MB - fixed) // 2
    assert machine.rehearsed == [(Limits(2), 0, True, 1)]


def test_small_chunks_come_before_streamed_blocks(machine: Machine) -> None:
    """With all resident, 155 MB and twice 10 MB: 6.4 MB are left for passes."""
    found = machine.plan(budget_of(155 * MB + 20 * MB + 6_400_000))
    assert found.streamed == frozenset()
    assert (found.limits.workers, found.limits.chunk_tokens) == (2, 32)
    assert found.cache_bytes == 10 * MB


def test_streamed_blocks_come_with_large_chunks_again(machine: Machine) -> None:
    """Two blocks at a time are all there are: what is saved is the head, which takes turns."""
    found = machine.plan(budget_of(140 * MB + 20 * MB + 12_800_000))
    assert found.streamed == {0, 1}
    assert (found.limits.workers, found.limits.chunk_tokens) == (2, 64)
    assert found.fixed_bytes == 140 * MB + 12_800_000


def test_what_a_rehearsal_takes_counts(machine: Machine) -> None:
    """Passes take 60 MB whatever the chunks, so none of the ten ways with all resident fits."""
    machine.passes = 60 * MB
    found = machine.plan(budget_of(155 * MB + 20 * MB + 51_200_000))
    assert found.streamed == {0, 1}
    assert found.limits == Limits(2)
    assert found.fixed_bytes == 140 * MB + 60 * MB
    assert [streamed for _, streamed, *_ in machine.rehearsed] == [0] * 10 + [2]


def test_texts_are_rehearsed_as_they_fit(machine: Machine) -> None:
    """In even numbers, where there are several; 16 at most."""
    budget = budget_of(155 * MB + 51_200_000 + 2 * 55 * MB)
    assert machine.plan(budget, texts=9).cache_bytes == 55 * MB
    machine.plan(budget, texts=1)
    machine.plan(10**12, texts=40)
    assert [rows for *_, rows in machine.rehearsed] == [4, 1, 16]


def test_a_rehearsal_that_has_to_stop_is_passed_over(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> None:
        machine.rehearse(*args)
        if machine.generator.engine.limits.chunk_tokens > 128:
            raise BudgetStopError("more than was foreseen")
        raise DivergedError("left to the texts")

    monkeypatch.setattr(machine.generator, "rehearse", stop)
    found = machine.plan(10**12)
    assert found.limits.chunk_tokens == 128
    assert machine.generator.engine.reliefs == []


def test_a_refusal_names_what_is_enough(machine: Machine) -> None:
    """The smallest way to run takes 140 MB and 1.6 MB, by half more for caution, and 20 MB for a
    text. It is rehearsed for that without the guard."""
    with pytest.raises(DoesNotFitError, match="keys and values of 4 prompt tokens") as caught:
        machine.plan(120 * MB)
    assert [run[1:] for run in machine.rehearsed] == [(2, False, 1)]
    text = str(caught.value)
    assert "give `budget='170 MB'`" in text  # 25/24 of 162.4 MB
    assert "max_new_tokens" not in text
    assert machine.generator.engine.guard is not None


def test_a_refusal_names_the_tokens_that_fit(machine: Machine) -> None:
    """A quarter of 10 MB is left: more tokens than the tiny model takes."""
    with pytest.raises(DoesNotFitError, match="or `max_new_tokens=60`"):
        machine.plan(budget_of(140 * MB + 1_600_000 + 5 * MB))


def test_what_the_process_took_is_refused_at_once(machine: Machine) -> None:
    with pytest.raises(DoesNotFitError, match=r"took 100 MB; give `budget='100 MB'`"):
        machine.plan(99 * MB)
    assert machine.rehearsed == []


def test_apply(machine: Machine) -> None:
    plan = GenerationPlan(10**9, Limits(1, 32), frozenset({1}), 5, 7)
    plan.apply(machine.generator)
    engine = machine.generator.engine
    assert (engine.limits, engine.streamed) == (Limits(1, 32), {1})
    assert machine.generator.cache_bytes == 7


# --- on a real bundle ---


def test_bytes_of_a_real_bundle(generator: Generator) -> None:
    engine, prompts = generator.engine, [4, 9, 2]
    bundle, params = engine.bundle, engine.bundle.trainables()
    work = GenerationWorkload(generator, prompts, params, NEW, 8 * 10**9)
    choice = Choice(Limits(3, 64), frozenset(), 1.0)
    model = bundle.manifest.model
    head = 4 * (VOCABULARY_CHUNK * (2 * model.hidden_size + 6) + 9 * model.vocab_size)
    chunk = int(UNMEASURED * 64 * bytes_of_token(bundle))
    assert work.computed(choice) == 3 * (max(chunk, head) + 9 * bytes_kept_of_token(bundle))
    assert work.least_bytes == 2 * generator.text_bytes(9, 8)
    blocks = sum(engine.model.block_bytes(index) for index in range(engine.num_blocks))
    logits, prologue = bundle.manifest.graphs.logits, bundle.manifest.graphs.prologue
    assert logits is not None
    spans = [engine.model.weights.span(binding.tensor) for binding in logits.weights]
    own = {b.tensor for b in prologue.weights} - {b.tensor for b in logits.weights}
    rows = [engine.model.weights.span(tensor) for tensor in own]
    vocabulary = sum(stop - start for start, stop in spans)
    vocabulary += min(FAULT_BYTES * 3 * 17, sum(stop - start for start, stop in rows))
    assert work.weights(choice) == blocks + vocabulary
    streamed = Choice(Limits(3, 64), frozenset({0, 1}), 1.0)
    assert work.weights(streamed) == max(blocks, vocabulary)


def test_a_real_plan_is_kept_to(generator: Generator) -> None:
    params = generator.engine.bundle.trainables()
    plan = plan_generation(generator, [4, 9], params, NEW, 8 * 10**9)
    assert plan.streamed == frozenset()
    assert plan.limits == Limits(generator.engine.limits.workers)
    assert plan.cache_bytes == (planned_bytes(8 * 10**9) - plan.fixed_bytes) // 2
    plan.apply(generator)
    texts = generator.generate([[5, 6, 7, 8], list(range(20, 29))], params, NEW)
    assert all(len(text.tokens) == 8 or text.finish == "end" for text in texts)
    assert generator.engine.reliefs == []


def test_room_beside_a_run(generator: Generator) -> None:
    """Keys and values of two equal blocks, and those of one twice, are twice the keys and values
    alone."""
    engine = generator.engine
    engine.guard = MemoryGuard(1000 * MB, resident=lambda: 900 * MB)
    assert room_beside(engine) == 30 * MB
    engine.guard = MemoryGuard(1000 * MB, resident=lambda: 990 * MB)
    assert room_beside(engine) == 0
    engine.guard = None
    assert room_beside(engine) is None
