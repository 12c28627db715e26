"""Which chunk is in which block when, and on which thread.

Parallelism is over chunks: a worker takes a chunk through all blocks with single-threaded kernels.
Threads inside a kernel would wait for each other at every one of some 2,000 operators per pass, and
wait long when another process takes a core; a chunk waits for nothing. As a consequence the bits do
not depend on the number of threads.

Where blocks are streamed, a wave of chunks goes through one stretch of neighbouring blocks after
the other instead, so that each block is fetched once per wave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from functools import partial

from edgezo_runtime.engine.chunks import Chunk, Cutter
from edgezo_runtime.engine.forward import Forward
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.engine.memory_relief import MemoryRelief
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import InterruptedRunError

Queue = deque[Chunk]


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
        for chunk in _taken(left):
            before = forward.before([chunk], cutter)
            if before is not None:
                self._walk(before[0], cutter, deque(before[1]))
            forward.start(chunk)
            for index in range(chunk.entry, len(self._model.blocks)):
                forward.block(index, chunk)
                self._memory.drop_streamed(index)  # it may be streamed since this pass began
            forward.end(chunk)

    def _stream(self, forward: Forward, chunks: Sequence[Chunk], cutter: Cutter) -> None:
        """Take waves of chunks through one stretch of blocks after the other."""
        for wave in cutter.waves(chunks, forward.groups, forward.wave_bytes()):
            before = forward.before(wave, cutter)
            if before is not None:
                self._stream(*before, cutter)
            self._each(forward.start, wave, cutter)
            self._model.drop_vocabulary()
            stretch = self._stretch(min(chunk.entry for chunk in wave), cutter)
            while stretch:
                following = self._stretch(stretch.stop, cutter)
                self._fetch(forward, following)
                takers = [chunk for chunk in wave if chunk.entry < stretch.stop]
                streamed = self._memory.streamed
                self._each(partial(self._cross, forward, stretch, streamed), takers, cutter)
                for index in streamed.intersection(stretch):
                    self._model.drop(index)
                if self._memory.streamed != streamed:
                    following = self._stretch(stretch.stop, cutter)
                stretch = following
            self._each(forward.end, wave, cutter)
            self._model.drop_vocabulary()

    def _stretch(self, first: int, cutter: Cutter) -> range:
        """The blocks from `first` on that chunks cross together; empty behind the last one."""
        sizes = [self._model.block_bytes(index) for index in range(len(self._model.blocks))]
        return next(cutter.limits.stretches(sizes, self._memory.streamed, first), range(0))

    def _cross(
        self, forward: Forward, stretch: range, streamed: frozenset[int], chunk: Chunk
    ) -> None:
        """Take a chunk through neighbouring blocks; `streamed` are dropped when all are through."""
        for index in stretch:
            if index >= chunk.entry:
                forward.block(index, chunk)
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
