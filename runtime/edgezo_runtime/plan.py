"""What of a run is in memory at once, chosen for the shortest step that a budget allows.

The candidates differ in how many blocks stay resident, in the size of chunks and in the number of
workers. What the graphs, the data and the libraries take is measured in the process as it stands;
what a pass takes is measured by a rehearsal on the longest rows, in one block of each kind, and
carried over to other sizes of chunks by a formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgezo_runtime.bundle import Bundle
from edgezo_runtime.chunks import Limits
from edgezo_runtime.errors import BudgetStopError, DivergedError, DoesNotFitError
from edgezo_runtime.forward import SCORED_POSITIONS
from edgezo_runtime.guard import LEFT, LOW_BYTES
from edgezo_runtime.ledger import Ledger, PeakSampler, vocabulary_pages
from edgezo_runtime.memory import anonymous_bytes, available_bytes, peak_rss_bytes, resident_bytes
from edgezo_runtime.prefix_cache import AnswerCache
from edgezo_runtime.sessions import ENVIRONMENT
from edgezo_runtime.sizes import format_size

if TYPE_CHECKING:
    from edgezo_runtime.engine import Engine
    from edgezo_runtime.example_set import ExampleSet
    from edgezo_runtime.tuner import Tuner

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

VOCABULARY_CHUNK = 4096
"""Vocabulary entries that an exported token scorer takes at a time."""

_FLOAT = 4
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
        anonymous_bytes: what of the predicted peak is no file's.
    """

    budget_bytes: int
    num_blocks: int
    choice: Choice
    ledger: Ledger
    cache_bytes: int
    smallest_bytes: int
    gains: tuple[Gain, ...]
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
    tuner: Tuner,
    budget_bytes: int,
    *,
    others: Sequence[ExampleSet] = (),
    eval_batch_size: int = 32,
    process_bytes: int = 0,
    data_bytes: int = 0,
) -> Plan:
    """Plan a run that was not started.

    Args:
        tuner: the run.
        budget_bytes: what the process may take.
        others: sets it is evaluated on.
        eval_batch_size: examples a pass in evaluations.
        process_bytes: what the process took before data were read, for the ledger; 0 if unknown.
        data_bytes: what the data took.
    Raises:
        DoesNotFitError: the budget is too small, whatever is done.
        BundleError: the weights' header cannot be read.
    """
    planner = _Planner(tuner, budget_bytes, others, eval_batch_size, process_bytes, data_bytes)
    try:
        return planner.plan()
    finally:
        tuner.engine.reliefs.clear()


class _Planner:
    """Predicts and measures candidates."""

    def __init__(
        self,
        tuner: Tuner,
        budget_bytes: int,
        others: Sequence[ExampleSet],
        eval_batch_size: int,
        process_bytes: int,
        data_bytes: int,
    ) -> None:
        self._tuner = tuner
        self._budget = budget_bytes
        self._others = others
        self._eval_batch_size = eval_batch_size
        self._process, self._data = process_bytes, data_bytes
        engine = tuner.engine
        self._engine = engine
        self._blocks = [engine.model.block_bytes(index) for index in range(engine.num_blocks)]
        sets = [tuner.examples, *others]
        size = max(tuner.config.batch_size, eval_batch_size if others else 1)
        self._pages = vocabulary_pages(engine.bundle, sets, size)
        self._start = peak_rss_bytes()
        self._base = resident_bytes()
        self._anonymous = anonymous_bytes()
        self._room = available_bytes() - LOW_BYTES - _THREAD_BYTES * ENVIRONMENT.threads
        self._scale = UNMEASURED
        self._measured: dict[tuple[Limits, bool], int] = {}
        self._formula = _Formula.of(tuner, sets)

    def plan(self) -> Plan:
        """Choose the fastest candidate that fits."""
        candidates = sorted(self._candidates(), key=lambda choice: choice.cost)
        chosen = self._choose(candidates)
        smallest_total = min(self._predict(choice).total for choice in candidates)
        cache = self._tuner.make_cache(None) if self._tuner.config.prefix_cache else None
        return Plan(
            budget_bytes=self._budget,
            num_blocks=len(self._blocks),
            choice=chosen[0],
            ledger=chosen[1],
            cache_bytes=0 if cache is None else min(cache.wanted_bytes, self._tuner.cache_limit),
            smallest_bytes=_budget_for(min(smallest_total, chosen[1].total)),
            gains=tuple(self._gains(candidates, chosen[0])),
            anonymous_bytes=self._anonymous + chosen[1].activations,
        )

    def _choose(self, candidates: list[Choice]) -> tuple[Choice, Ledger]:
        """The first that a rehearsal finds to fit.

        A rehearsal must not take more than the budget either: unless there is plenty, the smallest
        candidate comes first, and the formula is corrected by what it takes.
        """
        smallest = min(candidates, key=lambda choice: self._predict(choice).total)
        if not self._is_safe(candidates[0]):
            if self._predict(smallest).activations / UNMEASURED > self._room:
                raise self._no_room()
            least = self._measure(smallest)
            if not self._fits(least):
                raise self._refusal(least)
        for choice in candidates:
            measured = _key(choice) in self._measured
            if measured or (self._hopeful(choice) and self._is_safe(choice)):
                ledger = self._predict(choice) if measured else self._measure(choice)
                if self._fits(ledger):
                    return choice, ledger
        raise self._refusal(self._measure(smallest))

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
                    cost = slower * (WAVE_COST + STREAM_COST * len(streamed) / count)
                    yield Choice(limits, streamed, cost)
                limits = limits.smaller()
            if workers == 1:
                return
            workers //= 2

    def _fits(self, ledger: Ledger) -> bool:
        planned = self._budget - self._budget // RESERVE_SHARE
        return ledger.total <= planned and ledger.activations <= self._room

    def _hopeful(self, choice: Choice) -> bool:
        """Would it fit if it took less than is reckoned with?"""
        return self._fits(self._ledger(choice, int(self._activations(choice) * _HOPE)))

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
        """Rehearse; what did not fit without relief counts as more than the budget."""
        engine = self._engine
        engine.limits, engine.streamed = choice.limits, choice.streamed
        engine.reliefs.clear()
        engine.give_back()
        before = anonymous_bytes()
        try:
            with PeakSampler() as sampler:
                self._tuner.rehearse(self._others, self._eval_batch_size)
            activations = sampler.peak - before
            if engine.reliefs:
                activations = max(activations, self._budget)
        except DivergedError:
            activations = sampler.peak - before  # the run itself will say so
        except BudgetStopError as error:
            if LEFT in str(error):
                raise self._no_room() from error
            activations = self._budget
        engine.streamed = choice.streamed
        engine.give_back()
        self._base = resident_bytes()
        self._anonymous = anonymous_bytes()
        self._measured[_key(choice)] = activations
        if activations < self._budget:
            self._scale = _CAREFUL * activations / self._computed(choice)
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
            start=self._start,
        )

    def _gains(self, candidates: list[Choice], chosen: Choice) -> Iterator[Gain]:
        """Faster candidates by the budget they need, each faster than the one before."""
        best = chosen.cost
        by_need = sorted((self._predict(c).total, c.cost, i) for i, c in enumerate(candidates))
        for total, cost, index in by_need:
            needed = _budget_for(total)
            if cost < best * _WORTHWHILE and needed > self._budget:
                best = cost
                yield Gain(needed, chosen.cost / cost, candidates[index])

    def _no_room(self) -> DoesNotFitError:
        return DoesNotFitError(
            f"{format_size(available_bytes())} {LEFT} is too little to begin with; end other "
            f"programs, or raise the limit ('ulimit -v', the control group's)"
        )

    def _refusal(self, smallest: Ledger) -> DoesNotFitError:
        needed = format_size(_budget_for(smallest.total), up=True)
        parts = sorted(smallest.parts().items(), key=lambda part: -part[1])
        largest = ", ".join(f"{name} {format_size(size)}" for name, size in parts[:3])
        return DoesNotFitError(
            f"budget {format_size(self._budget)}: the smallest that does is '{needed}', with every "
            f"block streamed, one worker and the smallest chunks ({largest}); give --budget "
            f"'{needed}', or {self._knobs(smallest)}"
        )

    def _knobs(self, ledger: Ledger) -> str:
        """What would lower the smallest budget, the largest part first."""
        advice = {
            "data": "fewer rows",
            "adapter": "a lower --rank at export",
            "epilogue": "label words of one token, whose scores need no whole vocabulary",
            "blocks": "a smaller model or an int8 bundle",
            "activations": "a smaller --max-seq or --batch-size",
        }
        parts = sorted(ledger.parts().items(), key=lambda part: -part[1])
        return ", ".join(advice[name] for name, size in parts if name in advice and size)


@dataclass(frozen=True, slots=True)
class _Formula:
    """What passes take, computed; a rehearsal tells by how much it is wrong.

    Attributes:
        a_token: bytes of a token in a block.
        kept_of_token: bytes of a token that are kept while others of a long row go through a
            block: its state and, before and after the attention added its own, keys and values;
            0 where rows go through blocks as a whole.
        scorer: bytes of the token scorer.
        rows: sequences of a batch.
        longest: tokens of the longest row.
        groups: perturbed copies.
        past: bytes of a chunk's keys and values over its float16 copy.
        hidden: bytes of a batch's hidden states.
    """

    a_token: int
    kept_of_token: int
    scorer: int
    rows: int
    longest: int
    groups: int
    past: float
    hidden: int

    @classmethod
    def of(cls, tuner: Tuner, sets: Sequence[ExampleSet]) -> _Formula:
        """Read the sizes off a run."""
        bundle = tuner.engine.bundle
        model = bundle.manifest.model
        groups = tuner.groups
        longest = max(int(part.lengths().max()) for part in sets)
        rows = tuner.config.batch_size * max(part.sequences_per_example for part in sets)
        scores_tokens = any(part.kind != "labels" for part in sets)
        answers = tuner.config.prefix_cache and isinstance(tuner.make_cache(None), AnswerCache)
        return cls(
            a_token=_a_token(bundle),
            kept_of_token=_kept_of_token(bundle),
            scorer=_token_scores(groups, longest, model.hidden_size) if scores_tokens else 0,
            rows=rows,
            longest=longest,
            groups=groups,
            past=_past_share(bundle, groups) if answers else 0.0,
            hidden=_FLOAT * rows * groups * (1 if answers else longest) * model.hidden_size,
        )

    def activations(self, limits: Limits, *, streams: bool) -> int:
        """Bytes of all workers."""
        row = self.groups * self.longest
        chunks = -(-self.rows // max(1, limits.chunk_tokens // row))
        workers = min(limits.workers, chunks)
        tokens = limits.chunk_tokens if self.kept_of_token else max(limits.chunk_tokens, row)
        worker = tokens * self.a_token + self.scorer + int(self.past * limits.past_bytes)
        if row > limits.chunk_tokens:
            worker += row * self.kept_of_token
        waiting = min(limits.wave_bytes, self.hidden) if streams else 0
        return worker * (1 + workers) // 2 + waiting


def _a_token(bundle: Bundle) -> int:
    """Tensors that live at once in a block: the residual stream and its normalized and coded
    copies, and the widest layer's integer result, its float32 form and the gated one."""
    model = bundle.manifest.model
    shapes = [t.shape for graph in bundle.manifest.graphs.blocks for t in graph.inputs]
    wide = [
        max(shape) for shape in shapes if len(shape) == 2 and all(isinstance(d, int) for d in shape)
    ]
    widest = max((int(dim) for dim in wide), default=model.hidden_size)
    copies = 4 if bundle.manifest.quant == "int8" else 3
    return (6 * model.hidden_size + copies * widest) * _FLOAT


def _kept_of_token(bundle: Bundle) -> int:
    graphs = bundle.manifest.graphs
    if not graphs.continues:
        return 0
    sizes = [2 * heads * width for heads, width in _past_shapes(bundle)]
    return (bundle.manifest.model.hidden_size + 2 * max(sizes)) * _FLOAT


def _past_shapes(bundle: Bundle) -> list[tuple[int, int]]:
    """Heads and width of the keys and values of every block that takes earlier ones."""
    return [graph.past for graph in bundle.manifest.graphs.blocks if graph.past is not None]


def _past_share(bundle: Bundle, groups: int) -> float:
    """Keys and values of all blocks as float16, and of one block in float32 before and after the
    attention added its own, over the former."""
    sizes = [2 * heads * width for heads, width in _past_shapes(bundle)]
    return 1 + 4 * groups * max(sizes) / sum(sizes)


def _token_scores(groups: int, longest: int, hidden_size: int) -> int:
    """The token scorer: some ten pieces of logits and three of the float32 head at once, and the
    logits twice, because their size differs from pass to pass and the arena keeps what it took."""
    positions = groups * min(SCORED_POSITIONS, longest)
    return VOCABULARY_CHUNK * (20 * positions + 3 * hidden_size) * _FLOAT


def _key(choice: Choice) -> tuple[Limits, bool]:
    """What the activations depend on."""
    return choice.limits, bool(choice.streamed)


def _spread(count: int, chosen: int) -> frozenset[int]:
    """`chosen` of `count` blocks, evenly spread, so that there is time to fetch each."""
    return frozenset(int(place) for place in np.linspace(0, count - 1, chosen).round())


def _budget_for(total: int) -> int:
    """Smallest budget that a predicted peak fits."""
    budget = total * RESERVE_SHARE // (RESERVE_SHARE - 1)
    while total > budget - budget // RESERVE_SHARE:
        budget += 1
    return budget
