"""Which chunk is in which block when, and on which thread.

Parallelism is over chunks: a worker takes a chunk through all blocks with single-threaded kernels.
Threads inside a kernel would wait for each other at every one of some 2,000 operators per pass, and
wait long when another process takes a core; a chunk waits for nothing. As a consequence the bits do
not depend on the number of threads.

Where blocks are streamed, a wave of chunks goes through one stretch of neighbouring blocks after
the other instead, and goes back in the same way, so that each block is fetched once per wave and
direction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Literal

from edgezo_runtime.engine.chunks import Chunk, Cutter
from edgezo_runtime.engine.forward import Forward
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.engine.memory_relief import MemoryRelief
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import InterruptedRunError

Queue = deque[Chunk]


@dataclass(frozen=True, slots=True)
class _Way:
    """A way of chunks through blocks.

    Attributes:
        forward: the pass.
        block: takes a chunk through a block.
        blocks: those on the way, ascending.
        step: 1 from the first one to the last one, -1 back.
    """

    forward: Forward
    block: Callable[[int, Chunk], None]
    blocks: range
    step: Literal[1, -1]

    def behind(self, stretch: range) -> range:
        """The blocks that are left after a stretch."""
        if self.step > 0:
            return range(stretch.stop, self.blocks.stop)
        return range(self.blocks.start, stretch.start)


class Scheduler:
    """Takes the chunks of a pass through its stages.

    Args:
        model: whose blocks they are.
        memory: says which blocks are streamed.

    Attributes:
        alone: is one chunk computed at a time, whatever the limits say?
    """

    def __init__(self, model: LoadedModel, memory: MemoryRelief) -> None:
        self._model = model
        self._memory = memory
        self.alone = False

    def run(self, forward: Forward, chunks: Sequence[Chunk], cutter: Cutter) -> None:
        """Take chunks through all stages; all are over when this returns, even if one fails.

        Args:
            forward: the pass.
            chunks: of its batch.
            cutter: has the limits, and cuts what has to be evaluated before.
        Raises:
            InterruptedRunError: the interpreter ends, and the workers have.
        """
        workers = self._workers(chunks, cutter)
        if self._memory.streamed:
            self._stream(forward, chunks, cutter)
        elif workers == 1:
            self._walk(forward, cutter, deque(chunks))
        else:
            _share(partial(self._walk, forward, cutter), deque(chunks), workers)

    def _walk(self, forward: Forward, cutter: Cutter, left: Queue) -> None:
        """Take one chunk after the other through all stages, until none is left."""
        count = len(self._model.blocks)
        for chunk in _taken(left):
            before = forward.before([chunk], cutter)
            if before is not None:
                self._walk(before[0], cutter, deque(before[1]))
            forward.start(chunk)
            for index in range(chunk.entry, count):
                forward.block(index, chunk)
                self._memory.drop_streamed(index)  # it may be streamed since this pass began
            forward.end(chunk)
            if forward.back_to is not None:
                for index in reversed(range(forward.back_to, count)):
                    forward.back(index, chunk)
                    self._memory.drop_streamed(index)
                chunk.release()

    def _stream(self, forward: Forward, chunks: Sequence[Chunk], cutter: Cutter) -> None:
        """Take waves of chunks through one stretch of blocks after the other, and back."""
        count = len(self._model.blocks)
        for wave in cutter.waves(chunks, forward.groups, forward.wave_bytes):
            before = forward.before(wave, cutter)
            if before is not None:
                self._stream(*before, cutter)
            self._each(forward.start, wave, cutter)
            self._model.drop_vocabulary()
            first = min(chunk.entry for chunk in wave)
            self._cross(_Way(forward, forward.block, range(first, count), 1), wave, cutter)
            if forward.back_to is None:
                self._each(forward.end, wave, cutter)
                self._model.drop_vocabulary()
                continue
            back = _Way(forward, forward.back, range(forward.back_to, count), -1)
            self._fetch(forward, self._stretch(back.blocks, back.step, cutter))
            self._each(forward.end, wave, cutter)
            self._model.drop_vocabulary()
            self._cross(back, wave, cutter)
            for chunk in wave:
                chunk.release()

    def _cross(self, way: _Way, wave: Sequence[Chunk], cutter: Cutter) -> None:
        """Take a wave through one stretch of blocks after the other, in either direction."""
        stretch = self._stretch(way.blocks, way.step, cutter)
        while stretch:
            left = way.behind(stretch)
            following = self._stretch(left, way.step, cutter)
            self._fetch(way.forward, following)
            takers = [chunk for chunk in wave if chunk.entry < stretch.stop]
            streamed = self._memory.streamed
            self._each(partial(self._take, way, stretch, streamed), takers, cutter)
            for index in streamed.intersection(stretch):
                self._model.drop(index)
            if self._memory.streamed != streamed:
                following = self._stretch(left, way.step, cutter)
            stretch = following

    def _stretch(self, blocks: range, step: int, cutter: Cutter) -> range:
        """Those of the blocks that chunks cross together next; empty if there are none left."""
        sizes = [self._model.block_bytes(index) for index in range(blocks.stop)]
        stretches = cutter.limits.stretches(sizes, self._memory.streamed, blocks.start)
        found = list(stretches)[::step]
        return found[0] if found else range(0)

    def _take(self, way: _Way, stretch: range, streamed: frozenset[int], chunk: Chunk) -> None:
        """Take a chunk through neighbouring blocks; `streamed` are dropped when all are through."""
        for index in stretch[:: way.step]:
            if index >= chunk.entry:
                way.block(index, chunk)
            if index not in streamed:  # but it may be since this stretch began
                self._memory.drop_streamed(index)

    def _fetch(self, forward: Forward, stretch: range) -> None:
        """Have the next blocks read while the current ones compute."""
        for index in sorted(self._memory.streamed.intersection(stretch)):
            if not forward.skips(index):
                self._model.fetch(index)

    def _each(
        self, stage: Callable[[Chunk], None], chunks: Sequence[Chunk], cutter: Cutter
    ) -> None:
        """Run a stage on every chunk, and wait for all of them."""

        def work(left: Queue) -> None:
            for chunk in _taken(left):
                stage(chunk)

        _share(work, deque(chunks), self._workers(chunks, cutter))

    def _workers(self, chunks: Sequence[Chunk], cutter: Cutter) -> int:
        """Threads that take chunks."""
        if self.alone:
            return 1
        return min(cutter.limits.workers, ENVIRONMENT.threads, len(chunks))


def _taken(left: Queue) -> Iterator[Chunk]:
    """Take chunks from a queue that other threads take from as well."""
    while True:
        try:
            chunk = left.popleft()
        except IndexError:
            return
        yield chunk


def _share(work: Callable[[Queue], None], left: Queue, workers: int) -> None:
    """Have threads work off a queue; all are done when this returns, even if one fails.

    Raises:
        InterruptedRunError: the interpreter ends, and the workers have.
    """
    if workers == 1:
        work(left)
        return

    def part() -> None:
        try:
            work(left)
        except BaseException:
            left.clear()  # the others need not begin what is run again
            raise

    futures: list[Future[None]] = []
    try:
        for _ in range(workers):
            futures.append(_submitted(part))
        wait(futures)
    except BaseException:  # a second Ctrl-C: the caller may close what the workers use
        left.clear()
        wait(futures)
        raise
    for future in futures:
        future.result()


def _submitted(work: Callable[[], None]) -> Future[None]:
    """Give work to a worker."""
    try:
        return ENVIRONMENT.workers.submit(work)
    except RuntimeError as error:  # workers end before other threads do
        raise InterruptedRunError(f"the interpreter ends: {error}") from error
