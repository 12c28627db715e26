"""What of a generation is in memory at once: weights, passes, and keys and values of the texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.budget.ledger import FAULT_BYTES, PeakSampler
from edgezo_runtime.budget.memory_model import VOCABULARY_CHUNK, bytes_kept_of_token, bytes_of_token
from edgezo_runtime.budget.plan import RESERVE_SHARE, UNMEASURED, budget_for
from edgezo_runtime.bundle.manifest_types import GraphInfo
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BudgetStopError, DivergedError, DoesNotFitError
from edgezo_runtime.generation.decode_pass import LOGIT_ROWS
from edgezo_runtime.generation.generator import MOST_ROWS, GenerationConfig, Generator, least_rows
from edgezo_runtime.generation.kv_cache import past_shapes, turnover
from edgezo_runtime.system.memory import (
    anonymous_bytes,
    peak_rss_bytes,
    release_freed,
    resident_bytes,
)
from edgezo_runtime.system.sizes import format_size

Params = Mapping[str, npt.NDArray[np.float32]]

Way = tuple[Limits, frozenset[int]]
"""Limits, and the blocks that are streamed."""

_FLOAT = 4

_CAREFUL = 1.5
"""Passes over those seen, where a budget is named: the arena of the next process may be cut up in
other ways."""


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """How a generation keeps below its budget.

    Attributes:
        budget_bytes: the budget.
        limits: workers and sizes of chunks.
        streamed: blocks that are fetched when their turn comes.
        fixed_bytes: everything but keys and values.
        cache_bytes: what is left for keys and values.
    """

    budget_bytes: int
    limits: Limits
    streamed: frozenset[int]
    fixed_bytes: int
    cache_bytes: int

    def apply(self, generator: Generator) -> None:
        """Have a generator run like this."""
        generator.engine.limits, generator.engine.streamed = self.limits, self.streamed
        generator.cache_bytes = self.cache_bytes


def plan_generation(
    generator: Generator,
    prompts: Sequence[int],
    params: Params,
    writing: GenerationConfig,
    budget_bytes: int,
) -> GenerationPlan:
    """Plan the first way to run that fits: resident weights before streamed, large chunks first.

    What passes over prompts take is computed, and then seen from one over the longest prompts in
    one block of each kind: attention over long ones takes more than the formula knows of.

    Args:
        generator: what writes, in the process as it will be.
        prompts: tokens of every prompt.
        params: every trainable input by name, without the leading axis.
        writing: how.
        budget_bytes: what the process may take.
    Raises:
        DoesNotFitError: keys and values of one text do not fit beside the rest; with the number of
            tokens that would, and the budget that would do.
    """
    return _Planner(generator, max(prompts), len(prompts), params, writing, budget_bytes).plan()


def room_beside(engine: Engine) -> int | None:
    """Bytes for keys and values of texts that are written while a run is stepped.

    What the process takes now, steps among it, stays as it is; a reserve is left.

    Returns:
        The room, or None where there is no budget.
    """
    guard = engine.guard
    if guard is None:
        return None
    left = guard.budget_bytes - guard.budget_bytes // RESERVE_SHARE - guard.resident()
    return max(0, int(left / turnover(engine.bundle.manifest.graphs)))


class _Planner:
    """Weighs the ways to run."""

    def __init__(
        self,
        generator: Generator,
        prompt: int,
        texts: int,
        params: Params,
        writing: GenerationConfig,
        budget: int,
    ) -> None:
        self._generator = generator
        self._params = params
        self._engine = generator.engine
        self._prompt = prompt
        self._texts = texts
        self._new = writing.max_new_tokens
        self._budget = budget
        self._bundle = self._engine.bundle
        self._graphs = self._bundle.manifest.graphs
        release_freed()
        self._base = resident_bytes()
        self._seen: dict[Way, tuple[int, int]] = {}
        self._workers = self._engine.limits.workers
        count = self._engine.num_blocks
        self._blocks = [self._engine.model.block_bytes(index) for index in range(count)]

    def plan(self) -> GenerationPlan:
        """The first that fits."""
        start = peak_rss_bytes()
        if start > self._budget:
            raise DoesNotFitError(
                f"budget {format_size(self._budget)}: reading libraries, tokenizer and data alone "
                f"took {format_size(start)}; give --budget '{format_size(start, up=True)}' at least"
            )
        left = 0
        for limits, streamed in self._candidates():
            passes = self._activations(limits)
            room = self._room(limits, streamed, passes)
            if room >= self._one:
                seen = self._rehearsed(limits, streamed, room)
                if seen is None:
                    continue
                passes = max(passes, seen)
                room = self._room(limits, streamed, passes)
            if room >= self._one:
                fixed = self._fixed(limits, streamed, passes)
                return GenerationPlan(self._budget, limits, streamed, fixed, room)
            left = max(left, room)
        most = self._generator.most_tokens(self._prompt, left, self._texts)
        advice = f", or --max-new-tokens {most}" if most else ""
        raise DoesNotFitError(
            f"budget {format_size(self._budget)}: keys and values of {self._prompt} tokens of "
            f"prompt and {self._new} new ones do not fit beside the rest; give --budget "
            f"'{format_size(self._least(), up=True)}'{advice}"
        )

    @property
    def _one(self) -> int:
        """Keys and values of as few texts as can be written at once."""
        each = self._generator.text_bytes(self._prompt, self._new)
        return least_rows(self._texts) * each

    def _least(self) -> int:
        """The smallest budget that would do: of the ways that were rehearsed, or of the one that
        is computed to take least, which is rehearsed for it without the watch."""
        if not self._seen:
            way = min(self._candidates(), key=lambda way: self._need(way, self._base, 0))
            guard, self._engine.guard = self._engine.guard, None
            try:
                self._rehearsed(*way, self._one)
            finally:
                self._engine.guard = guard
            passes = int(UNMEASURED * self._activations(way[0]))
            self._seen.setdefault(way, (self._base, passes))
        least = min(self._need(way, *seen) for way, seen in self._seen.items())
        return max(least, self._budget + 1)

    def _need(self, way: Way, base: int, passes: int) -> int:
        """The budget for as few texts as can be written at once."""
        passes = int(_CAREFUL * max(passes, self._activations(way[0])))
        states = int(self._one * turnover(self._graphs))
        return budget_for(base + self._weights(*way) + passes + states)

    def _candidates(self) -> Iterator[Way]:
        everything = frozenset(range(self._engine.num_blocks))
        for streamed in (frozenset[int](), everything):
            workers = self._workers
            while workers:
                limits: Limits | None = Limits(workers)
                while limits is not None:
                    yield limits, streamed
                    limits = limits.smaller()
                workers //= 2

    def _room(self, limits: Limits, streamed: frozenset[int], passes: int) -> int:
        """Bytes that are left for keys and values."""
        planned = self._budget - self._budget // RESERVE_SHARE
        return int((planned - self._fixed(limits, streamed, passes)) / turnover(self._graphs))

    def _rehearsed(self, limits: Limits, streamed: frozenset[int], room: int) -> int | None:
        """Bytes that a pass over the longest prompts takes, besides their keys and values.

        Returns:
            The bytes, or None where memory was short.
        """
        engine, generator = self._engine, self._generator
        least = least_rows(self._texts)
        each = generator.text_bytes(self._prompt, self._new)
        rows = max(least, min(MOST_ROWS, self._texts, room // each) // least * least)
        engine.limits, engine.streamed = limits, streamed
        engine.give_back()
        # what the arena could not give back of earlier goes is used again, so it is not passes'
        self._base, before = resident_bytes(), anonymous_bytes()
        failed = False
        with PeakSampler() as sampler:
            try:
                generator.rehearse(self._prompt, rows, self._params)
            except BudgetStopError:
                failed = True
            except DivergedError:
                pass  # the texts themselves will say so
        failed = failed or bool(engine.reliefs)
        engine.reliefs.clear()
        engine.give_back()
        shapes = past_shapes(self._graphs)
        kept = sum(2 * _FLOAT * shapes[i][0] * shapes[i][1] for i in engine.model.kinds)
        if failed:
            return None
        passes = sampler.peak - before - rows * self._prompt * kept
        self._seen[limits, streamed] = self._base, passes
        return passes

    def _fixed(self, limits: Limits, streamed: frozenset[int], passes: int) -> int:
        """Bytes of everything but keys and values."""
        return self._base + self._weights(limits, streamed) + passes

    def _weights(self, limits: Limits, streamed: frozenset[int]) -> int:
        """Bytes of blocks and vocabulary that are in memory at once."""
        if streamed:  # the vocabulary is let go before blocks come
            blocks = min(sum(self._blocks), 2 * max(limits.fetch_bytes, max(self._blocks)))
            return max(blocks, self._vocabulary())
        return sum(self._blocks) + self._vocabulary()

    def _vocabulary(self) -> int:
        """Pages of the head, and those of the embedding that it does not share."""
        head, embedding = self._graphs.logits, self._graphs.prologue
        assert head is not None
        own = {b.tensor for b in embedding.weights} - {b.tensor for b in head.weights}
        touched = FAULT_BYTES * self._texts * (self._prompt + self._new)
        rows = min(touched, self._bytes(embedding, own)) if own else 0
        return self._bytes(head, {b.tensor for b in head.weights}) + rows

    def _bytes(self, graph: GraphInfo, tensors: set[str]) -> int:
        spans = {b.tensor: self._engine.model.weights.span(b.tensor) for b in graph.weights}
        return sum(spans[name][1] - spans[name][0] for name in tensors)

    def _activations(self, limits: Limits) -> int:
        """Bytes of passes: chunks of prompts with their keys and values, and logits."""
        model = self._bundle.manifest.model
        row = bytes_kept_of_token(self._bundle) * self._prompt
        rows = max(2, min(LOGIT_ROWS, self._texts))
        head = VOCABULARY_CHUNK * (2 * model.hidden_size + 2 * rows) + 3 * rows * model.vocab_size
        chunk = int(UNMEASURED * limits.chunk_tokens * bytes_of_token(self._bundle))
        return limits.workers * (max(chunk, _FLOAT * head) + row)
