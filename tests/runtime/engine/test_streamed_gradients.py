"""Gradients where blocks are streamed: the same bits, each block read once per wave and direction,
and states that are let go whatever happens in the middle of a wave."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.devices.faults import ShortOfMemoryError
from edgezo_runtime.engine import backward, first_order_pass, scheduler
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.engine.prefix_cache import AnswerCache
from edgezo_runtime.errors import BudgetStopError, InterruptedRunError
from edgezo_runtime.system.memory_guard import MemoryGuard
from tests.runtime.engine.test_first_order import FAMILIES, KINDS, batch_of, tiny
from tests.runtime.memory_meter import guard
from tests.runtime.tiny_sets import random_set

PART = 40
"""Tokens of a part: the batch has seven parts and more."""

WAYS: tuple[dict[str, int], ...] = (
    {"wave_bytes": 1, "fetch_bytes": 1},
    {"wave_bytes": 1, "workers": 1},
    {"wave_bytes": 60_000, "fetch_bytes": 1},
    {"wave_bytes": 1 << 40},
    {"wave_bytes": 1 << 40, "fetch_bytes": 1, "workers": 1},
)
"""Waves of one part, of a few, and of the whole batch; stretches of one block and of all."""


def streaming(bundle: Any, blocks: set[int] | None = None, **limits: int) -> Engine:
    """An engine of two workers whose blocks are streamed."""
    engine = Engine(bundle, threads=2)
    engine.limits = dataclasses.replace(engine.limits, **limits)
    engine.streamed = frozenset(range(engine.num_blocks) if blocks is None else blocks)
    return engine


def assert_same_bits(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found.losses, expected.losses)
    assert found.gradients.keys() == expected.gradients.keys()
    for name, grad in expected.gradients.items():
        np.testing.assert_array_equal(found.gradients[name], grad, name)


# --- bits ---


@pytest.mark.parametrize("name", FAMILIES)
def test_streamed_blocks_change_no_bit(exported, name) -> None:
    bundle, theta = tiny(exported, name)
    batch = batch_of(bundle)
    expected = FirstOrderGradient(Engine(bundle, threads=2), 0, PART).gradient(batch, theta)
    for limits in WAYS[:3]:
        engine = streaming(bundle, **limits)
        assert_same_bits(FirstOrderGradient(engine, 0, PART).gradient(batch, theta), expected)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("quant", ["fp32", "int8", "w4"])
@pytest.mark.parametrize("kind", KINDS)
def test_waves_of_any_size_change_no_bit(exported, kind, quant, scope) -> None:
    bundle, theta = tiny(exported, "llama", quant)
    batch = batch_of(bundle, kind)
    for first in (0, 1):
        resident = FirstOrderGradient(Engine(bundle, threads=2), first, PART)
        expected = resident.gradient(batch, theta, scope)
        for limits in WAYS:
            for blocks in ({0}, {1}, {0, 1}):
                tail = FirstOrderGradient(streaming(bundle, blocks, **limits), first, PART)
                assert_same_bits(tail.gradient(batch, theta, scope), expected)


@pytest.mark.slow
def test_waves_of_last_tokens_change_no_bit(exported, tmp_path, monkeypatch) -> None:
    """In parts of four rows, behind cached prompts and before they are cached."""
    monkeypatch.setattr(first_order_pass, "PART_ANSWERS", 4)
    bundle, theta = tiny(exported, "llama", "int8")
    batch = batch_of(bundle)
    layout = KeyValueLayout.of(bundle.manifest.graphs, 0)

    def gradient(engine: Engine, folder: str) -> Any:
        width = bundle.manifest.model.hidden_size
        cache = AnswerCache(tmp_path / folder, batch.lengths, width, layout)
        tail = FirstOrderGradient(engine, 0)
        first, second = (tail.gradient(batch, theta, "answer", cache) for _ in range(2))
        cache.close()
        assert_same_bits(second, first)
        return first

    expected = gradient(Engine(bundle, threads=2), "resident")
    for number, limits in enumerate(WAYS):
        assert_same_bits(gradient(streaming(bundle, **limits), f"streamed{number}"), expected)


# --- reads ---


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[int]]:
    """Count how often each block is used after it was dropped, or for the first time."""
    reads: Counter[int] = Counter()
    resident: set[int] = set()
    drop, plain_block = LoadedModel.drop, first_order_pass._FirstOrderPass.block
    plain_back = first_order_pass._FirstOrderPass.back

    def use(index: int) -> None:
        if index not in resident:
            resident.add(index)
            reads[index] += 1

    def dropping(model: LoadedModel, index: int) -> None:
        resident.discard(index)
        drop(model, index)

    def block(self: Any, index: int, chunk: Chunk) -> None:
        use(index)
        plain_block(self, index, chunk)

    def back(self: Any, index: int, chunk: Chunk) -> None:
        use(index)
        plain_back(self, index, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "drop", dropping)
        patch.setattr(first_order_pass._FirstOrderPass, "block", block)
        patch.setattr(first_order_pass._FirstOrderPass, "back", back)
        yield reads


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("first", [0, 1])
def test_a_block_is_read_once_per_wave_and_direction(exported, monkeypatch, first, workers) -> None:
    """Pins blocks that every part read for itself on its way back."""
    bundle, theta = tiny(exported, "llama")
    batch = batch_of(bundle)
    for wave_bytes, largest in ((1, workers), (60_000, None), (1 << 40, 10**6)):
        engine = streaming(bundle, wave_bytes=wave_bytes, workers=workers, fetch_bytes=1)
        waves: list[int] = []
        plain = scheduler.Scheduler._cross

        def cross(self: Any, way: Any, wave: Any, cutter: Any, plain=plain, waves=waves) -> None:
            waves.append(len(wave))
            plain(self, way, wave, cutter)

        with watched(monkeypatch) as reads:
            monkeypatch.setattr(scheduler.Scheduler, "_cross", cross)
            FirstOrderGradient(engine, first, PART).gradient(batch, theta)
            monkeypatch.setattr(scheduler.Scheduler, "_cross", plain)
        there = len(waves) // 2
        assert sum(waves) // 2 >= 7
        if largest is not None:
            assert max(waves) == min(largest, sum(waves) // 2)
        assert reads == {index: there * (2 if index >= first else 1) for index in range(2)}


# --- memory ---


@pytest.mark.parametrize("wave_bytes", [1, 40_000, 1 << 40])
def test_states_of_a_wave_are_no_more_than_is_counted(exported, monkeypatch, wave_bytes) -> None:
    """Rows of one length: a wave holds exactly what the cutter adds up, and lets all of it go."""
    bundle, theta = tiny(exported, "llama")
    engine = streaming(bundle, wave_bytes=wave_bytes)
    rows = random_set("labels", (20,) * 12, bundle.manifest.tokenizer.pad_id)
    batch = make_batch(rows, range(12))
    held: dict[int, int] = {}
    peaks: list[int] = []
    chunks: dict[int, Chunk] = {}
    plain = first_order_pass._FirstOrderPass.back

    def back(self: Any, index: int, chunk: Chunk) -> None:
        chunks[id(chunk)] = chunk
        if index == engine.num_blocks - 1:
            size = sum(np.prod(value.shape()) * 4 for value in [*chunk.kept, chunk.grad])
            held[id(chunk)] = int(size)
        plain(self, index, chunk)

    def cross(
        self: Any, way: Any, wave: Any, cutter: Any, plain=scheduler.Scheduler._cross
    ) -> None:
        plain(self, way, wave, cutter)
        peaks.append(sum(held.get(id(chunk), 0) for chunk in wave))

    monkeypatch.setattr(first_order_pass._FirstOrderPass, "back", back)
    monkeypatch.setattr(scheduler.Scheduler, "_cross", cross)
    FirstOrderGradient(engine, 0, PART).gradient(batch, theta)
    part = 2 * 20 * bundle.manifest.model.hidden_size * 4 * (engine.num_blocks + 1)
    assert set(held.values()) == {part}  # two rows each
    assert max(peaks) == min(6, max(2, wave_bytes // part)) * part
    assert all(chunk.kept is chunk.grad is chunk.hidden is None for chunk in chunks.values())


@pytest.mark.slow
@pytest.mark.parametrize("times", [2, 8])
def test_memory_that_gets_short_in_a_wave_changes_no_bit(exported, times) -> None:
    bundle, theta = tiny(exported, "llama", "int8")
    batch = batch_of(bundle)
    expected = FirstOrderGradient(Engine(bundle, threads=2), 0, PART).gradient(batch, theta)
    for blocks in (set(), {0}, {0, 1}):
        engine = streaming(bundle, blocks, wave_bytes=60_000, fetch_bytes=1)
        engine.guard = guard(times)
        tail = FirstOrderGradient(engine, 0, PART)
        assert_same_bits(tail.gradient(batch, theta), expected)
        assert engine.reliefs
        assert_same_bits(tail.gradient(batch, theta), expected)


@pytest.mark.slow
def test_memory_that_is_refused_on_the_way_back_changes_no_bit(exported, monkeypatch) -> None:
    """At every backward graph of a step, one at a time."""
    bundle, theta = tiny(exported, "llama", "int8")
    batch = batch_of(bundle)
    expected = FirstOrderGradient(Engine(bundle, threads=2), 0, PART).gradient(batch, theta)
    plain, seen, refuse = backward.run_graph, 0, -1

    def refusing(*args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen - 1 == refuse:
            raise ShortOfMemoryError("onnxruntime was refused memory")
        return plain(*args, **options)

    monkeypatch.setattr(backward, "run_graph", refusing)
    engine = streaming(bundle, wave_bytes=60_000, fetch_bytes=1, workers=1)
    tail = FirstOrderGradient(engine, 0, PART)
    tail.gradient(batch, theta)
    for number in range(0, seen, 3):
        engine.limits = streaming(bundle, wave_bytes=60_000, fetch_bytes=1, workers=1).limits
        engine.reliefs.clear()
        seen, refuse = 0, number
        assert_same_bits(tail.gradient(batch, theta), expected)
        assert len(engine.reliefs) == 1


def test_memory_that_is_refused_for_ever_stops_and_leaves_the_engine_usable(
    exported,
) -> None:
    bundle, theta = tiny(exported, "llama", "int8")
    batch = batch_of(bundle)
    engine = streaming(bundle, wave_bytes=60_000, fetch_bytes=1)
    tail = FirstOrderGradient(engine, 0, PART)
    expected = tail.gradient(batch, theta)
    engine.guard = guard(10**6)
    with pytest.raises(BudgetStopError):
        tail.gradient(batch, theta)
    engine.guard = None
    assert_same_bits(tail.gradient(batch, theta), expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_at_any_block_ends_the_wave(exported, workers) -> None:
    """At every check of a step: on the way there, and on the way back."""
    bundle, theta = tiny(exported, "llama")
    batch = batch_of(bundle)
    engine = streaming(bundle, wave_bytes=60_000, fetch_bytes=1, workers=workers)
    tail = FirstOrderGradient(engine, 0, PART)
    expected = tail.gradient(batch, theta)
    checks, stop = 0, -1

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks - 1 == stop:
            raise InterruptedRunError("enough")

    with engine.interruptible(check):
        assert_same_bits(tail.gradient(batch, theta), expected)
        assert checks >= 4 * 7  # two blocks, there and back, for every part
        for number in range(0, checks, 5):
            stop, checks = number, 0
            with pytest.raises(InterruptedRunError):
                tail.gradient(batch, theta)
        stop, checks = -1, 0
        assert_same_bits(tail.gradient(batch, theta), expected)


def test_memory_is_checked_at_every_block_of_the_way_back(exported) -> None:
    bundle, theta = tiny(exported, "llama")
    looks = 0

    def resident() -> int:
        nonlocal looks
        looks += 1
        return 0

    engine = streaming(bundle, workers=1)
    engine.guard = MemoryGuard(100, resident=resident, available=lambda: 2**40)
    parts = first_order_pass.ExampleCutter.of(bundle.manifest, PART).cut(batch_of(bundle))
    FirstOrderGradient(engine, 0, PART).gradient(batch_of(bundle), theta)
    assert looks == 4 * len(parts)
