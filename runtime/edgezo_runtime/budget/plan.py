"""What of a run is in memory at once, chosen for the shortest step that a budget allows.

The candidates differ in how many blocks stay resident, in the size of chunks and in the number of
workers. What the graphs, the data and the libraries take is measured in the process as it stands;
what a pass takes is measured by a rehearsal on the longest rows, in one block of each kind, and
carried over to other sizes of chunks by a formula.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgezo_runtime.budget.ledger import Ledger, PeakSampler, vocabulary_pages
from edgezo_runtime.budget.memory_model import MemoryModel
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import BudgetStopError, DivergedError, DoesNotFitError
from edgezo_runtime.system.memory import (
    anonymous_bytes,
    available_bytes,
    peak_rss_bytes,
    resident_bytes,
)
from edgezo_runtime.system.memory_guard import LEFT, LOW_BYTES
from edgezo_runtime.system.sizes import format_size

if TYPE_CHECKING:
    from edgezo_runtime.data.example_set import ExampleSet
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.training.run import Run

RESERVE_SHARE = 25
"""One part in so many of the budget is not planned with: what is between two looks at the memory,
and what a rehearsal cannot foresee."""

CHUNK_COST = {256: 1.0, 128: 1.03, 64: 1.09, 32: 1.34, 16: 1.9}
"""Time of a step with chunks of so many tokens; measured on SmolLM2-135M."""

WAVE_COST = 1.02
"""Time of a step where chunks wait for each other between blocks."""

STREAM_COST = 0.03
"""What a step takes longer where every block is streamed from cached pages."""

UNMEASURED = 2.0
"""Activations over computed ones that are reckoned with before any were measured."""

_CAREFUL = 1.1
"""The same of sizes that were not measured over those that were."""

_HOPE = 0.6
"""Share of what is reckoned with that a rehearsal may turn out to take."""

_THREAD_BYTES = 16 << 20
"""Stack and heap that a new thread may ask for."""

_LEVELS = 8
"""Numbers of streamed blocks that are considered."""

_WORTHWHILE = 0.97


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run.

    Attributes:
        limits: workers and sizes of chunks.
        streamed: blocks that are fetched when their turn comes.
        cost: time of a step, 1 for everything resident and all workers busy.
    """

    limits: Limits
    streamed: frozenset[int]
    cost: float

    def words(self, num_blocks: int) -> str:
        """The choice, for people."""
        resident = num_blocks - len(self.streamed)
        blocks = f"{resident} of {num_blocks} blocks resident" if self.streamed else "all resident"
        workers = f"{self.limits.workers} worker{'s' if self.limits.workers > 1 else ''}"
        return f"{blocks}, {workers}, chunks of {self.limits.chunk_tokens} tokens"


@dataclass(frozen=True, slots=True)
class Gain:
    """What more memory would bring.

    Attributes:
        budget_bytes: smallest budget for it.
        speedup: time of a step as planned over the time then.
        choice: how the run would go.
    """

    budget_bytes: int
    speedup: float
    choice: Choice


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run keeps below its budget.

    Attributes:
        budget_bytes: the budget.
        num_blocks: blocks of the model.
        choice: what is in memory at once.
        ledger: where the bytes go.
        cache_bytes: size of the cache on disk; its pages are no memory of the process.
        smallest_bytes: smallest budget that would do.
        gains: what more memory would bring, the smallest first.
        weights_bytes: weights of all blocks.
        anonymous_bytes: what of the predicted peak is no file's.
    """

    budget_bytes: int
    num_blocks: int
    choice: Choice
    ledger: Ledger
    cache_bytes: int
    smallest_bytes: int
    gains: tuple[Gain, ...]
    weights_bytes: int
    anonymous_bytes: int

    @property
    def predicted_bytes(self) -> int:
        """Predicted peak."""
        return self.ledger.total

    @property
    def reserve_bytes(self) -> int:
        """What of the budget is not planned with."""
        return self.budget_bytes - self.predicted_bytes

    def apply(self, engine: Engine) -> None:
        """Have an engine run like this."""
        engine.limits = self.choice.limits
        engine.streamed = self.choice.streamed
        engine.trim_above = self.anonymous_bytes

    def words(self) -> str:
        """The choice, for people."""
        return self.choice.words(self.num_blocks)

    def as_json(self) -> dict[str, Any]:
        """The plan for machines."""
        limits = self.choice.limits
        return {
            "budget_bytes": self.budget_bytes,
            "predicted_bytes": self.predicted_bytes,
            "smallest_bytes": self.smallest_bytes,
            "ledger": {**self.ledger.parts(), "reserve": self.reserve_bytes},
            "start_peak_bytes": self.ledger.start,
            "resident_blocks": self.num_blocks - len(self.choice.streamed),
            "streamed_blocks": len(self.choice.streamed),
            "workers": limits.workers,
            "chunk_tokens": limits.chunk_tokens,
            "cache_bytes": self.cache_bytes,
            "gains": [
                {
                    "budget_bytes": gain.budget_bytes,
                    "speedup": round(gain.speedup, 3),
                    "resident_blocks": self.num_blocks - len(gain.choice.streamed),
                    "workers": gain.choice.limits.workers,
                    "chunk_tokens": gain.choice.limits.chunk_tokens,
                }
                for gain in self.gains
            ],
        }


def make_plan(
    tuner: Run,
    budget_bytes: int,
    *,
    others: Sequence[ExampleSet] = (),
    eval_batch_size: int = 32,
    process_bytes: int = 0,
    data_bytes: int = 0,
    start_bytes: int = 0,
) -> Plan:
    """Plan a run that was not started.

    Args:
        tuner: the run; its first-order steps are dropped where they do not fit and may be.
        budget_bytes: what the process may take.
        others: sets it is evaluated on.
        eval_batch_size: examples a pass in evaluations.
        process_bytes: what the process took before data were read, for the ledger; 0 if unknown.
        data_bytes: what the data took.
        start_bytes: peak of the process so far, where the budget is meant for all of its life; 0
            where it is for what comes.
    Raises:
        DoesNotFitError: the budget is too small, whatever is done.
        BundleError: the weights' header cannot be read.
    """
    before = (process_bytes, data_bytes, start_bytes)
    try:
        try:
            return _Planner(tuner, budget_bytes, others, eval_batch_size, before).plan()
        except DoesNotFitError:
            if not tuner.trajectory.drop_first_order():
                raise
            tuner.engine.give_back()
            return _Planner(tuner, budget_bytes, others, eval_batch_size, before).plan()
    finally:
        tuner.engine.reliefs.clear()


class _Planner:
    """Predicts and measures candidates."""

    def __init__(
        self,
        tuner: Run,
        budget_bytes: int,
        others: Sequence[ExampleSet],
        eval_batch_size: int,
        before: tuple[int, int, int],
    ) -> None:
        self._tuner = tuner
        self._budget = budget_bytes
        self._others = others
        self._eval_batch_size = eval_batch_size
        self._process, self._data, self._start = before
        engine = tuner.engine
        self._engine = engine
        self._blocks = [engine.model.block_bytes(index) for index in range(engine.num_blocks)]
        sets = [tuner.examples, *others]
        size = max(tuner.batch_size, eval_batch_size if others else 1)
        self._pages = vocabulary_pages(engine.bundle, sets, size)
        self._base = resident_bytes()
        self._anonymous = anonymous_bytes()
        self._room = available_bytes() - LOW_BYTES - _THREAD_BYTES * ENVIRONMENT.threads
        self._scale = UNMEASURED
        self._measured: dict[tuple[Limits, bool], int] = {}
        self._failed: set[tuple[Limits, bool]] = set()
        self._formula = MemoryModel.of(tuner, sets)
        self._texts = tuner.evaluator.grant(
            budget_bytes, max(int(part.lengths().max()) for part in sets)
        )

    def plan(self) -> Plan:
        """Choose the fastest candidate that fits."""
        candidates = sorted(self._candidates(), key=lambda choice: choice.cost)
        chosen = self._choose(candidates)
        least = min(self._predict(choice).steady for choice in candidates)
        if self._start:  # a rehearsal may have been the peak so far
            chosen = chosen[0], dataclasses.replace(chosen[1], start=peak_rss_bytes())
        limit = self._tuner.cache_limit
        cache = (
            self._tuner.probes.make_cache(None, limit) if self._tuner.config.prefix_cache else None
        )
        return Plan(
            budget_bytes=self._budget,
            num_blocks=len(self._blocks),
            choice=chosen[0],
            ledger=chosen[1],
            cache_bytes=0 if cache is None else cache.size_bytes,
            smallest_bytes=max(self._start, budget_for(min(least, chosen[1].steady))),
            weights_bytes=sum(self._blocks),
            gains=tuple(self._gains(candidates, chosen[0])),
            anonymous_bytes=self._anonymous + chosen[1].activations,
        )

    def _choose(self, candidates: list[Choice]) -> tuple[Choice, Ledger]:
        """The first that a rehearsal finds to fit.

        A rehearsal must not take more than the budget either: unless there is plenty, the smallest
        candidate comes first, and the formula is corrected by what it takes.
        """
        smallest = min(candidates, key=lambda choice: self._predict(choice).steady)
        if not self._is_safe(candidates[0]):
            if self._predict(smallest).activations / UNMEASURED > self._room:
                raise self._no_room()
            if not self._fits(self._measure(smallest), smallest):
                raise self._refusal(smallest)
        for choice in candidates:
            measured = _key(choice) in self._measured
            if measured or (self._hopeful(choice) and self._is_safe(choice)):
                ledger = self._predict(choice) if measured else self._measure(choice)
                if self._fits(ledger, choice):
                    return choice, ledger
        ledger = self._measure(smallest)
        if self._fits(ledger, smallest):
            return smallest, ledger
        raise self._refusal(smallest)

    def _candidates(self) -> Iterator[Choice]:
        count = len(self._blocks)
        workers = ENVIRONMENT.threads
        while True:
            limits: Limits | None = Limits(workers)
            while limits is not None:
                slower = CHUNK_COST[limits.chunk_tokens] * ENVIRONMENT.threads / workers
                yield Choice(limits, frozenset(), slower)
                for part in range(1, _LEVELS + 1):
                    streamed = _spread(count, -(-count * part // _LEVELS))
                    fetched = self._formula.waves(limits) * len(streamed) / count
                    cost = slower * (WAVE_COST + STREAM_COST * fetched)
                    yield Choice(limits, streamed, cost)
                limits = limits.smaller()
            if workers == 1:
                return
            workers //= 2

    def _fits(self, ledger: Ledger, choice: Choice) -> bool:
        planned = self._budget - self._budget // RESERVE_SHARE
        fits = ledger.steady <= planned and ledger.activations <= self._room
        return fits and self._start <= self._budget and _key(choice) not in self._failed

    def _hopeful(self, choice: Choice) -> bool:
        """Would it fit if it took less than is reckoned with?"""
        hoped = int(self._activations(choice) * _HOPE)
        return self._fits(self._ledger(choice, hoped), choice)

    def _is_safe(self, choice: Choice) -> bool:
        """Does its rehearsal, which has one block of each kind, keep below the budget?"""
        sampled = sum(self._blocks[index] for index in self._engine.model.kinds)
        pages = self._pages.prologue_batch + self._pages.epilogue_whole
        rehearsed = self._base + sampled + pages + self._activations(choice)
        return rehearsed <= self._budget and self._activations(choice) <= self._room

    def _predict(self, choice: Choice) -> Ledger:
        return self._ledger(choice, self._activations(choice))

    def _activations(self, choice: Choice) -> int:
        """Bytes of passes: as measured, or as computed and corrected by what others took."""
        known = self._measured.get(_key(choice))
        if known is not None:
            return known
        return int(self._computed(choice) * self._scale)

    def _computed(self, choice: Choice) -> int:
        return max(1, self._formula.activations(choice.limits, streams=bool(choice.streamed)))

    def _measure(self, choice: Choice) -> Ledger:
        """Rehearse, without the watch: what is rehearsed was found safe, or is the smallest."""
        engine = self._engine
        engine.limits, engine.streamed = choice.limits, choice.streamed
        engine.give_back()
        before = anonymous_bytes()
        guard, engine.guard = engine.guard, None
        try:
            with PeakSampler() as sampler:
                rows = self._formula.telling_rows(choice.limits, streams=bool(choice.streamed))
                self._tuner.evaluator.rehearse(self._others, self._eval_batch_size, max_rows=rows)
        except DivergedError:
            pass  # the run itself will say so
        except BudgetStopError:
            self._failed.add(_key(choice))
        finally:
            engine.guard = guard
        activations = sampler.peak - before
        activations += self._formula.unsampled(choice.limits, streams=bool(choice.streamed))
        if engine.reliefs:  # the arena's limit cut it smaller
            self._failed.add(_key(choice))
            engine.reliefs.clear()
        if _key(choice) in self._failed:
            activations = max(activations, int(self._computed(choice) * self._scale))
        else:
            self._scale = _CAREFUL * activations / self._computed(choice)
        engine.give_back()
        self._base, self._anonymous = resident_bytes(), anonymous_bytes()
        self._measured[_key(choice)] = activations
        return self._ledger(choice, activations)

    def _ledger(self, choice: Choice, activations: int) -> Ledger:
        state = self._tuner.state.nbytes
        streamed = max(
            sum(self._blocks[index] for index in choice.streamed.intersection(stretch))
            for stretch in choice.limits.stretches(self._blocks, choice.streamed)
        )
        resident = sum(self._blocks) - sum(self._blocks[index] for index in choice.streamed)
        pages = self._pages
        prologue, epilogue = pages.prologue, pages.epilogue
        if choice.streamed:  # the vocabulary is let go before blocks come
            prologue = max(0, min(prologue, pages.prologue_batch) - streamed)
            epilogue = max(0, pages.epilogue_whole - streamed - prologue)
        known = min(self._base, self._process + self._data + state)
        return Ledger(
            process=self._process or self._base - self._data - state,
            data=self._data,
            graphs=self._base - known if self._process else 0,
            adapter=state,
            prologue=prologue,
            epilogue=epilogue,
            blocks=resident + streamed,
            activations=activations,
            texts=self._texts,
            start=self._start,
        )

    def _gains(self, candidates: list[Choice], chosen: Choice) -> Iterator[Gain]:
        """Faster candidates by the budget they need, each faster than the one before."""
        best = chosen.cost
        by_need = sorted((self._predict(c).steady, c.cost, i) for i, c in enumerate(candidates))
        for total, cost, index in by_need:
            needed = max(self._start, budget_for(total))
            if cost < best * _WORTHWHILE and needed > self._budget:
                best = cost
                yield Gain(needed, chosen.cost / cost, candidates[index])

    def _no_room(self) -> DoesNotFitError:
        return DoesNotFitError(
            f"{format_size(available_bytes())} {LEFT} is too little to begin with; end other "
            f"programs, or raise the limit ('ulimit -v', the control group's)"
        )

    def _refusal(self, smallest: Choice) -> DoesNotFitError:
        ledger = self._predict(smallest)
        least = budget_for(ledger.steady)
        needed = format_size(max(self._start, least), up=True)
        if self._start > least:
            return DoesNotFitError(
                f"budget {format_size(self._budget)}: reading libraries and data alone took "
                f"{format_size(self._start)}; give --budget '{needed}', or fewer rows"
            )
        parts = sorted(ledger.parts().items(), key=lambda part: -part[1])
        largest = ", ".join(f"{name} {format_size(size)}" for name, size in parts[:3])
        return DoesNotFitError(
            f"budget {format_size(self._budget)}: the smallest that does is '{needed}', with every "
            f"block streamed, one worker and the smallest chunks ({largest}); give --budget "
            f"'{needed}', or {', '.join(self._knobs(parts))}"
        )

    def _knobs(self, parts: list[tuple[str, int]]) -> Iterator[str]:
        """What would lower the smallest budget, for the largest parts first."""
        int8 = self._engine.bundle.manifest.quant == "int8"
        advice = {
            "data": "fewer rows",
            "adapter": "fewer trainables at export (a lower --rank, another --trainable)",
            "epilogue": "label words of one token, whose scores need no whole vocabulary",
            "blocks": "a smaller model" if int8 else "an int8 bundle",
            "activations": "a smaller --max-seq",
        }
        shown = [advice[name] for name, size in parts if name in advice and size * 20 > parts[0][1]]
        yield from shown or [advice["activations"]]


def _key(choice: Choice) -> tuple[Limits, bool]:
    """What the activations depend on."""
    return choice.limits, bool(choice.streamed)


def _spread(count: int, chosen: int) -> frozenset[int]:
    """`chosen` of `count` blocks, evenly spread, so that there is time to fetch each."""
    return frozenset(int(place) for place in np.linspace(0, count - 1, chosen).round())


def budget_for(total: int) -> int:
    """Smallest budget that a predicted peak fits."""
    budget = total * RESERVE_SHARE // (RESERVE_SHARE - 1)
    while total > budget - budget // RESERVE_SHARE:
        budget += 1
    return budget
