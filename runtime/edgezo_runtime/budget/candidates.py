"""The ways to run a model that a plan chooses from.

They differ in how many blocks stay resident, in the size of chunks and in the number of workers.
None of that changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgezo_runtime.engine.chunks import Limits

CHUNK_COST = {256: 1.0, 128: 1.03, 64: 1.09, 32: 1.34, 16: 1.9}
"""Relative time of a pass by the tokens of a chunk; measured on SmolLM2-135M."""

WAVE_COST = 1.02
"""Relative time of a pass where chunks wait for each other between blocks."""

STREAM_COST = 0.03
"""Time added where every block is streamed once, from pages that the system has cached, over that
of a pass of `STREAM_TOKENS` tokens."""

STREAM_TOKENS = 1024

BACK_COST = 5
"""Time of a token that goes forward and back, over that of one that goes forward only; measured on
SmolLM2-135M."""

Shape = tuple[Limits, bool]
"""Limits, and whether blocks are streamed: what the memory of passes depends on."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run.

    Attributes:
        limits: number of workers and sizes of chunks.
        streamed: blocks that are fetched for each pass and dropped after it.
        cost: relative time of a pass: 1 with all blocks resident and all workers busy.
    """

    limits: Limits
    streamed: frozenset[int]
    cost: float

    @property
    def shape(self) -> Shape:
        """Choices of the same shape have passes of the same size."""
        return self.limits, bool(self.streamed)

    def words(self, num_blocks: int) -> str:
        """Describe the choice for people."""
        resident = num_blocks - len(self.streamed)
        blocks = f"{resident} of {num_blocks}" if self.streamed else f"all {num_blocks}"
        workers = f"{self.limits.workers} worker{'s' if self.limits.workers > 1 else ''}"
        return f"{blocks} blocks resident, {workers}, chunks of {self.limits.chunk_tokens} tokens"


def enumerate_choices(
    workers: int,
    num_blocks: int,
    *,
    levels: int,
    fetches: Callable[[Limits], float] = lambda limits: 1,
) -> Iterator[Choice]:
    """Yield every way to run, those with the most workers and the largest chunks first.

    Args:
        workers: most chunks that are computed at the same time; halved down to one.
        num_blocks: blocks of the model.
        levels: numbers of streamed blocks that are considered, besides none; the last is all.
        fetches: tells how often a pass fetches each streamed block.
    """
    count = workers
    while count:
        limits: Limits | None = Limits(count)
        while limits is not None:
            slower = CHUNK_COST[limits.chunk_tokens] * workers / count
            yield Choice(limits, frozenset(), slower)
            for level in range(1, levels + 1):
                streamed = spread(num_blocks, -(-num_blocks * level // levels))
                fetched = fetches(limits) * len(streamed) / num_blocks
                yield Choice(limits, streamed, slower * (WAVE_COST + STREAM_COST * fetched))
            limits = limits.smaller()
        count //= 2


def spread(num_blocks: int, chosen: int) -> frozenset[int]:
    """Choose blocks at even distances, so that there is time to fetch each."""
    return frozenset(int(place) for place in np.linspace(0, num_blocks - 1, chosen).round())
