"""Forward passes over the blocks of a bundle, many perturbed copies at a time.

A pass evaluates G groups (probes) of the same B sequences, R = G * B rows, row g * B + b. The rows
are cut into chunks of sequences. Up to the first perturbed block the groups are equal, and each
sequence is run once.

Parallelism is over chunks: a worker takes a chunk through all blocks with single-threaded kernels.
Threads inside a kernel would wait for each other at every one of some 2,000 operators a pass, and
wait badly when another process takes a core; a chunk waits for nobody. As a consequence the bits do
not depend on the number of threads.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.manifest import copy_bytes
from edgezo_runtime.data.batches import Batch, behind
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.answer_pass import AnswerPass
from edgezo_runtime.engine.chunks import CHUNK_TOKENS, Chunk, Cutter, Limits
from edgezo_runtime.engine.forward import (
    FirstActive,
    Forward,
    Params,
    SharedParams,
    WholePass,
    Work,
)
from edgezo_runtime.engine.loaded_model import MODELS
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.engine.sessions import ENVIRONMENT, ShortOfMemoryError
from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.system.memory import anonymous_bytes, release_freed
from edgezo_runtime.system.memory_errors import budget_stop, refusal_reason
from edgezo_runtime.system.memory_guard import BUDGET, MemoryGuard

__all__ = ["Engine", "Params", "SharedParams"]

T = TypeVar("T")
Float32 = npt.NDArray[np.float32]
Stage = Callable[[Chunk], None]


def _leave(guard: MemoryGuard | None, process: int) -> None:
    """What an engine shares with others, let go."""
    if os.getpid() != process:  # the other one has it
        return
    ENVIRONMENT.release()
    if guard is not None:
        BUDGET.release(guard)


def _submitted(work: Callable[[], None]) -> Future[None]:
    """Work for a worker."""
    try:
        return ENVIRONMENT.workers.submit(work)
    except RuntimeError as error:  # they end before other threads do
        raise InterruptedRunError(f"the interpreter ends: {error}") from error


class Engine:
    """Runs a bundle.

    Args:
        bundle: opened bundle.
        threads: compute threads of the process's pool; None takes one a core.
        arena_bytes: hard limit of the process's arena, None for none.
        chunk_tokens: see `Limits`.
        guard: watches the memory at every block boundary; None for no watch.

    Attributes:
        limits: how much of a batch is in memory at once.
        streamed: blocks that are fetched from the file when their turn comes, and let go again.
        reliefs: what was done because memory was short, in words.
        trim_above: anonymous memory of the process beyond which, after a pass, the arena gives back
            what it does not need; None for never. It keeps what it ever took, and shapes that
            change from pass to pass leave holes.

    Raises:
        UsageError: `threads` or `chunk_tokens` is below 1.
        BundleError: a graph cannot be loaded, or a file is not what the manifest says.
        DoesNotFitError: the weights cannot be mapped, or the threads not be started.
        MemoryError: a graph was refused memory.
        MissingExtraError: onnxruntime is not installed.

    Memory:
        The weights are one mapped file. The arena holds, for each worker, the activations of one
        chunk in one block.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        arena_bytes: int | None = None,
        chunk_tokens: int = CHUNK_TOKENS,
        guard: MemoryGuard | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}: must be 1 or more, or None for one a core")
        Limits(1, chunk_tokens).check()
        self.bundle = bundle
        bundle.verify_once()
        ENVIRONMENT.prepare(threads, arena_bytes)
        self._release = weakref.finalize(self, _leave, guard, os.getpid())
        self._release.atexit = False  # passes may run until then
        self.model = MODELS.of(bundle)
        self.limits = Limits(ENVIRONMENT.threads, chunk_tokens)
        self.streamed: frozenset[int] = frozenset()
        self.guard = self._held = guard
        if guard is not None:
            BUDGET.hold(guard)
        self.reliefs: list[str] = []
        self.trim_above: int | None = None
        self._own = threading.local()
        self._process = os.getpid()
        self._turns = ENVIRONMENT.turns
        self._relief = threading.Lock()
        self._sample: frozenset[int] | None = None

    @property
    def forked(self) -> bool:
        """Is this a copy that a fork made? Its workers are in the other process."""
        return os.getpid() != self._process

    @property
    def inside(self) -> bool:
        """Does this thread do a part of a pass, as a governor does?"""
        return self._turns.inside

    def require_here(self) -> None:
        """Refuse to be used in a fork of the process.

        Raises:
            UsageError: it would wait for threads that are in the other one.
        """
        if self.forked:
            raise UsageError(
                f"this was opened in process {self._process} and cannot be used in a fork of it; "
                f"open it in the process that uses it"
            )

    def close(self) -> None:
        """Leave workers and budget to the other engines of the process, when no pass runs."""
        if self.forked:
            return
        with self._turns:
            self._release()

    @property
    def num_blocks(self) -> int:
        """Blocks of the model."""
        return len(self.model.blocks)

    def score(
        self,
        batch: Batch,
        params: Params,
        code: tuple[Float32, Float32] | None = None,
        *,
        first_active: FirstActive = 0,
        cache: PrefixCache | AnswerCache | None = None,
        cache_block: int = 0,
        scope: Scope = "all",
    ) -> Float32:
        """Evaluate G groups of a batch.

        Args:
            batch: B sequences.
            params: the trainable inputs; see `Params`.
            code: (code, decode), each (G, G) float32; None means one group.
            first_active: blocks before this one have P = 1 throughout and are run once for all
                groups; or one such block a group, ascending. Until its block a group is taken to be
                like the first, and any leading part of the code must be a code itself.
            cache: what is kept between passes; the blocks before `cache_block` must be the same in
                every pass. An `AnswerCache` is for prompts whose last token alone is scored, and
                for the scope "answer".
            cache_block: where the cached states enter; at most any `first_active`.
            scope: tokens the adapters act on; see `edgezo_runtime.data.scope`.
        Returns:
            Label logits (G, B, C) when the batch has label words, else log-probabilities of its
            targets (G, T), float32. A row's result does not depend on the other rows.
        Raises:
            UsageError: `params` gives a number of copies that fits neither rows nor groups.
            DivergedError: a hidden state does not fit the cache.
            BudgetStopError: memory is short, and nothing is left to save any.
        """
        scheme = self.bundle.manifest.scheme
        if scheme.prompt_tokens:
            batch = behind(batch, scheme.tokens)

        def once(work: Work) -> Float32:
            chunks = self._evaluate(work, code, first_active, cache, cache_block, scope)
            return np.concatenate([chunk.scores for chunk in chunks], axis=1)

        return self._passed(batch, params, once)

    def run(
        self,
        batch: Batch,
        params: Params,
        make: Callable[[Work], Forward],
        cut: Callable[[Batch], list[Chunk]],
        *,
        continuing: bool = False,
    ) -> list[Chunk]:
        """Take one group through all blocks by a pass of the caller's.

        Args:
            batch: B sequences.
            params: the trainable inputs.
            make: gives the pass.
            cut: gives the chunks of the batch, behind the scheme's virtual tokens if it has any;
                asked again where memory was short.
            continuing: the batch goes on from earlier tokens, the virtual ones among them.
        Returns:
            The chunks, all through.
        Raises:
            BudgetStopError: memory is short, and nothing is left to save any.
        """
        scheme = self.bundle.manifest.scheme
        if scheme.prompt_tokens and not continuing:
            batch = behind(batch, scheme.tokens)

        def once(work: Work) -> list[Chunk]:
            chunks = cut(batch)
            self._run(make(work), chunks, 1)
            return chunks

        return self._passed(batch, params, once)

    def _passed(self, batch: Batch, params: Params, once: Callable[[Work], T]) -> T:
        """Do a pass when it is this thread's turn, in smaller pieces where memory was short."""
        self.require_here()
        with self._turns:
            self._require_time()
            while True:
                tokens = self.limits.chunk_tokens
                work = Work(self.model, batch, params, self._checks(), tokens, self._sample)
                try:
                    found = once(work)
                    if self.trim_above is not None and anonymous_bytes() > self.trim_above:
                        self.model.shrink_arena()
                    return found
                except MemoryError as error:
                    reason = refusal_reason(error)
                del work
                self._shrink(reason)  # here, where the error no longer holds what the pass held

    @contextmanager
    def interruptible(self, check: Callable[[], None]) -> Iterator[None]:
        """Let something end the passes that this thread asks for meanwhile.

        Args:
            check: called at every block boundary, by any worker; raises to end the pass.
        """
        self._own.check = check
        try:
            yield
        finally:
            self._own.check = None

    def check(self) -> None:
        """Be ended here, between passes, by what `interruptible` was given."""
        check: Callable[[], None] | None = getattr(self._own, "check", None)
        if check is not None:
            check()

    def _checks(self) -> Callable[[], None]:
        """What the workers of a pass call at every block boundary."""
        check: Callable[[], None] | None = getattr(self._own, "check", None)
        if check is None:
            return self._watch

        def both() -> None:
            with self._turns.part():
                check()
            self._watch()

        return both

    def _evaluate(
        self,
        work: Work,
        code: tuple[Float32, Float32] | None,
        first_active: FirstActive,
        cache: PrefixCache | AnswerCache | None,
        cache_block: int,
        scope: Scope,
    ) -> list[Chunk]:
        """Cut a batch and take the chunks through all stages."""
        cutter = self.cutter(work.params.private)
        groups = 1 if code is None else len(code[0])
        forward: Forward
        if isinstance(cache, AnswerCache):
            forward = AnswerPass(work, code, first_active, cache, cache_block)
            chunks = cutter.answers(work.batch, groups, cache.layout)
        else:
            forward = WholePass(work, code, first_active, cache, cache_block, scope)
            chunks = cutter.chunks(work.batch, groups)
        self._run(forward, chunks, groups)
        return chunks

    def leave(self, index: int) -> None:
        """A chunk is through a block on its way back: let its weights go if they are streamed."""
        if index in self.streamed:
            self.model.drop(index)

    @contextmanager
    def sampling(self, blocks: frozenset[int]) -> Iterator[None]:
        """Run these blocks only, for what they take; scores mean nothing meanwhile."""
        self._sample = blocks
        try:
            yield
        finally:
            self._sample = None

    @property
    def sampled(self) -> frozenset[int] | None:
        """The blocks that run, inside `sampling`; None for all."""
        return self._sample

    def cutter(self, private: bool = False) -> Cutter:
        """What cuts batches as the limits are now.

        Args:
            private: has every sequence copies of the trainables of its own?
        """
        manifest = self.bundle.manifest
        longest = manifest.model.max_seq + manifest.scheme.prompt_tokens
        copy = copy_bytes(manifest) if private else 0
        return Cutter(self.limits, longest, manifest.model.hidden_size, copy)

    # --- who is where when ---

    def _run(self, forward: Forward, chunks: list[Chunk], groups: int) -> None:
        """Take chunks through all stages.

        A worker takes a chunk through all blocks, so that it never waits for another. Where blocks
        are streamed, a wave of chunks goes through one stretch of neighbouring blocks after the
        other instead: each is fetched once a wave.
        """
        if self.streamed:
            self._stream(forward, chunks, groups)
        else:
            self._map(partial(self._walk, forward), chunks)

    def _walk(self, forward: Forward, chunk: Chunk) -> None:
        """Take one chunk through all stages."""
        first = forward.before([chunk], self.cutter())
        if first is not None:
            for part in first[1]:
                self._walk(first[0], part)
        forward.start(chunk)
        for index in range(chunk.entry, self.num_blocks):
            forward.block(index, chunk)
            if index in self.streamed:  # it may be since this pass began
                self.model.drop(index)
        forward.end(chunk)

    def _stream(self, forward: Forward, chunks: list[Chunk], groups: int) -> None:
        """Take waves of chunks through one stretch of blocks after the other."""
        for wave in self.cutter().waves(chunks, groups, forward.wave_bytes()):
            first = forward.before(wave, self.cutter())
            if first is not None:
                self._stream(*first, groups=1)
            self._map(forward.start, wave)
            self.model.drop_vocabulary()
            stretch = self._stretch(min(chunk.entry for chunk in wave))
            while stretch:
                following = self._stretch(stretch.stop)
                self._fetch(following)
                takers = [chunk for chunk in wave if chunk.entry < stretch.stop]
                streamed = self.streamed
                self._map(partial(self._cross, forward, stretch, streamed), takers)
                for index in streamed.intersection(stretch):
                    self.model.drop(index)
                stretch = following if self.streamed == streamed else self._stretch(stretch.stop)
            self._map(forward.end, wave)
            self.model.drop_vocabulary()

    def _stretch(self, first: int) -> range:
        """The blocks from `first` on that chunks cross together; empty behind the last one."""
        sizes = [self.model.block_bytes(index) for index in range(self.num_blocks)]
        return next(self.limits.stretches(sizes, self.streamed, first), range(0))

    def _cross(
        self, forward: Forward, stretch: range, streamed: frozenset[int], chunk: Chunk
    ) -> None:
        """Take a chunk through neighbouring blocks; `streamed` are dropped when all are through."""
        for index in stretch:
            if index >= chunk.entry:
                forward.block(index, chunk)
            if index in self.streamed - streamed:  # since this stretch began
                self.model.drop(index)

    def _fetch(self, stretch: range) -> None:
        """Have the next blocks read while the current ones compute."""
        for index in sorted(self.streamed.intersection(stretch)):
            if self._sample is None or index in self._sample:
                self.model.fetch(index)

    def _map(self, run: Stage, chunks: Sequence[Chunk]) -> None:
        """Run a stage on every chunk; all are over when this returns, even if one fails.

        Raises:
            InterruptedRunError: the interpreter ends, and the workers have.
        """
        workers = min(self.limits.workers, ENVIRONMENT.threads, len(chunks))
        left = deque(chunks)

        def work() -> None:
            while True:
                try:
                    chunk = left.popleft()
                except IndexError:
                    return
                try:
                    run(chunk)
                except BaseException:
                    left.clear()  # the others need not begin what is run again
                    raise

        if workers == 1:
            work()
            return
        futures: list[Future[None]] = []
        try:
            for _ in range(workers):
                futures.append(_submitted(work))
            wait(futures)
        except BaseException:  # a second Ctrl-C: whoever comes next may close what they use
            left.clear()
            wait(futures)
            raise
        for future in futures:
            future.result()

    # --- memory ---

    def _watch(self) -> None:
        """Look at the memory; the first time it is short, stream every block.

        Raises:
            ShortOfMemoryError: it is short, and every block is streamed already.
            InterruptedRunError: the interpreter ends.
        """
        self._require_time()
        guard = BUDGET.strictest(self.guard, self._held)
        if guard is None or guard.pressure() is None:
            return
        with self._relief:
            reason = guard.pressure(afresh=True)  # another worker may have helped in the meantime
            if reason is None:
                return
            everything = frozenset(range(self.num_blocks))
            if self.streamed == everything:
                raise ShortOfMemoryError(reason)
            self.streamed = everything
            self._drop_weights()
            self.reliefs.append(f"{reason}: streaming all {self.num_blocks} blocks from now on")

    def _require_time(self) -> None:
        if ENVIRONMENT.ending:
            raise InterruptedRunError("the interpreter ends")

    def _drop_weights(self) -> None:
        for index in range(self.num_blocks):
            self.model.drop(index)
        self.model.drop_vocabulary()

    def give_back(self) -> None:
        """Give back all that can be had again: between passes, where memory was refused."""
        with self._turns:
            self._drop_weights()
            self.model.shrink_arena()
            release_freed()

    def trim(self) -> None:
        """Give back what the arena keeps of passes whose sizes do not come again."""
        with self._turns:
            self.model.shrink_arena()

    def shrink(self, reason: str) -> None:
        """Halve the chunks, then the workers, and give back what the arena does not need.

        Args:
            reason: what is short, in words.

        Raises:
            BudgetStopError: there is nothing left to halve.
        """
        with self._turns:
            self._shrink(reason)

    def _shrink(self, reason: str) -> None:
        smaller = self.limits.smaller()
        if smaller is not None:
            told = f"chunks of {smaller.chunk_tokens} tokens"
        elif self.limits.workers > 1:
            smaller = dataclasses.replace(self.limits, workers=self.limits.workers // 2)
            told = f"{smaller.workers} of {self.limits.workers} workers"
        else:
            raise budget_stop(
                reason,
                f"; chunks are as small as they can be, one worker is left and "
                f"{len(self.streamed)} of {self.num_blocks} blocks are streamed; give the run more "
                f"memory, by a larger --budget if that is short, or a smaller --max-seq",
            )
        self.limits = smaller
        self.model.shrink_arena()
        release_freed()
        self.reliefs.append(f"{reason}: {told} from now on")
