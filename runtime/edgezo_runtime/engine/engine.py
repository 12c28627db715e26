"""Forward passes over the blocks of a bundle, many perturbed copies at a time.

A pass evaluates G groups (probes) of the same B sequences, R = G * B rows, row g * B + b. The rows
are cut into chunks of sequences. Up to the first perturbed block the groups are equal, and each
sequence is run once.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch, behind
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.device import Device
from edgezo_runtime.devices.faults import ShortOfDeviceError
from edgezo_runtime.engine.chunks import CHUNK_TOKENS, Chunk, Cutter, Limits
from edgezo_runtime.engine.forward import FirstActive, Forward, Work
from edgezo_runtime.engine.loaded_model import MODELS
from edgezo_runtime.engine.memory_relief import HoldsBytes, MemoryRelief, Reservation
from edgezo_runtime.engine.params import Params, SharedParams
from edgezo_runtime.engine.prefix_cache import NO_CACHE, Cache
from edgezo_runtime.engine.scheduler import Scheduler
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.memory import anonymous_bytes
from edgezo_runtime.system.memory_errors import refusal_reason
from edgezo_runtime.system.memory_guard import BUDGET, MemoryGuard

__all__ = ["Engine", "Params", "Planned", "SharedParams"]

Planned = Literal["scores", "gradient"]
"""Passes whose memory is planned."""

LONG_PASS_S = 4.0
"""Seconds from which on a pass is long beside the time that it takes to fill the arena anew."""

Float32 = npt.NDArray[np.float32]


def _leave(guard: MemoryGuard | None, process: int) -> None:
    """Release the environment and the memory guard that an engine holds."""
    if os.getpid() != process:  # a fork has nothing to release
        return
    ENVIRONMENT.release()
    if guard is not None:
        BUDGET.release(guard)


class _ThreadCheck(threading.local):
    """The check that may end the passes of the current thread."""

    check: Callable[[], None] | None = None


class Engine:
    """Runs a bundle.

    Args:
        bundle: opened bundle.
        threads: compute threads of the process's pool; None takes one per core.
        arena_bytes: hard limit of the process's arena; None for no limit.
        chunk_tokens: tokens of a chunk, all groups counted.
        guard: asked at every block boundary whether memory is short; None for no guard.
        device: what runs the graphs.

    Attributes:
        limits: how much of a batch is in memory at once.
        streamed: blocks that are fetched from the file for each use, and dropped afterwards.
        reliefs: descriptions of the measures against a shortage of memory; see `MemoryRelief`.
        trim_above: anonymous memory of the process beyond which, after a pass, the arena gives back
            what it does not need, as it does after every long pass; None for never. The arena keeps
            what it ever took, and shapes that change from pass to pass leave holes in it.
        apart: between a pass for scores and one for a gradient, the arena gives back what it does
            not need, as the plan measured each by itself.

    Raises:
        UsageError: `threads` or `chunk_tokens` is below 1, or the bundle has no graphs for the
            device.
        BundleError: a graph cannot be loaded or run on the device, or a file is not what the
            manifest says.
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
        device: Device = CPU,
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}: must be 1 or more, or None for one per core")
        Limits(1, chunk_tokens).check()
        self.bundle = bundle
        bundle.verify_once()
        ENVIRONMENT.prepare(threads, arena_bytes)
        self._release = weakref.finalize(self, _leave, guard, os.getpid())
        self._release.atexit = False  # passes may run until then
        self.model = MODELS.of(bundle, device)
        self._memory = MemoryRelief(self.model, Limits(self.most_workers, chunk_tokens))
        self._scheduler = Scheduler(self.model, self._memory)
        self.reliefs = self._memory.reliefs
        self.guard = self._held = guard
        if guard is not None:
            BUDGET.hold(guard)
        self.trim_above: int | None = None
        self.apart = False
        self._last: Planned | None = None
        self._own = _ThreadCheck()
        self._process = os.getpid()
        self._turns = ENVIRONMENT.turns
        self._sample: frozenset[int] | None = None

    @property
    def limits(self) -> Limits:
        """How much of a batch is in memory at once."""
        return self._memory.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._memory.limits = limits

    @property
    def streamed(self) -> frozenset[int]:
        """Blocks that are fetched from the file when their turn comes, and dropped again."""
        return self._memory.streamed

    @streamed.setter
    def streamed(self, blocks: frozenset[int]) -> None:
        self._memory.streamed = blocks

    @property
    def reservation(self) -> Reservation | None:
        """What passes take as planned, which is reserved before each; None without a plan."""
        return self._memory.reservation

    @reservation.setter
    def reservation(self, reservation: Reservation | None) -> None:
        self._memory.reservation = reservation

    def note_text(self, states: HoldsBytes) -> None:
        """Count the keys and values of a text, as long as they live, as what a plan left for it."""
        with self._turns:  # no pass looks at them meanwhile
            self._memory.texts.add(states)

    def note_learned(self, size: int) -> None:
        """Count bytes that stay behind passes which learn as those that a plan has for them."""
        self._memory.learned_bytes = size

    @property
    def most_workers(self) -> int:
        """Chunks that can be computed at once: a GPU takes one after the other."""
        return self.model.device.workers or ENVIRONMENT.threads

    @property
    def forked(self) -> bool:
        """Is this a copy that a fork made? Its workers are in the other process."""
        return os.getpid() != self._process

    @property
    def inside(self) -> bool:
        """Does this thread do a part of a pass, as a governor does?"""
        return self._turns.works_for_holder

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
        cache: Cache | None = None,
        cache_block: int = 0,
        scope: Scope = "all",
    ) -> Float32:
        """Evaluate G groups of a batch.

        Args:
            batch: B sequences.
            params: the trainable inputs.
            code: (code, decode), each (G, G) float32; None means one group.
            first_active: blocks before this one have P = 1 throughout and are run once for all
                groups; or one such block per group, ascending. Until its block a group is taken to
                be like the first, and any leading part of the code must be a code itself.
            cache: states cached between passes; the blocks before `cache_block` must be the same in
                every pass. An `AnswerCache` is for prompts whose last token alone is scored, and
                for the scope "answer".
            cache_block: where the cached states enter; at most any `first_active`.
            scope: tokens that the adapters act on.
        Returns:
            Label logits (G, B, C) when the batch has label words, else log-probabilities of its
            targets (G, T), float32. A row's result does not depend on the other rows.
        Raises:
            UsageError: `params` gives a number of copies that fits neither rows nor groups.
            DivergedError: a hidden state does not fit the cache.
            BudgetStopError: memory is short, and nothing is left to save any.
        """
        cache = NO_CACHE if cache is None else cache
        groups = 1 if code is None else len(code[0])

        def make(work: Work) -> Forward:
            return cache.scoring_pass(work, code, first_active, cache_block, scope)

        def cut(taken: Batch) -> list[Chunk]:
            return cache.cut(self.cutter(params.private), taken, groups)

        chunks = self.run(batch, params, make, cut, planned="scores")
        return np.concatenate([chunk.scores for chunk in chunks], axis=1)

    def run(
        self,
        batch: Batch,
        params: Params,
        make: Callable[[Work], Forward],
        cut: Callable[[Batch], list[Chunk]],
        *,
        continuing: bool = False,
        planned: Planned | None = None,
    ) -> list[Chunk]:
        """Take a batch through all blocks, by a pass that the caller makes.

        It begins when it is this thread's turn, and runs again in smaller chunks where memory was
        short.

        Args:
            batch: B sequences.
            params: the trainable inputs.
            make: makes the pass.
            cut: cuts the batch, behind the scheme's virtual tokens if it has any, into chunks;
                called again where memory was short.
            continuing: the batch continues from earlier tokens, the virtual ones among them.
            planned: reserve what the plan says that passes of this kind take; None for generated
                texts, which get what is left.
        Returns:
            The chunks, after the last block.
        Raises:
            UsageError: the engine is used in a fork of its process.
            InterruptedRunError: the interpreter ends.
            BudgetStopError: memory is short, and nothing is left to save any.
        """
        scheme = self.bundle.manifest.scheme
        if scheme.prompt_tokens and not continuing:
            batch = behind(batch, scheme.tokens)
        self.require_here()
        with self._turns:
            ENVIRONMENT.require_time()
            self.model.device.ledger.passes = planned or ""
            while True:
                if planned is not None:
                    self._reserve(planned)
                work: Work | None = None
                chunks: list[Chunk] = []
                began = time.monotonic()
                tokens = self.limits.chunk_tokens
                try:
                    work = Work(self.model, batch, params, self._checks(), tokens, self._sample)
                    chunks = cut(batch)
                    self._scheduler.run(make(work), chunks, self.cutter())
                    self._trim_after(time.monotonic() - began)
                    return chunks
                except MemoryError as error:
                    reason = refusal_reason(error)
                    stream = isinstance(error, ShortOfDeviceError)
                work, chunks = None, []
                self._memory.shrink(
                    reason, stream=stream
                )  # here, where nothing holds what the pass held

    def _trim_after(self, seconds: float) -> None:
        """Shrink the arena after a pass that took so long, or that left more than was planned."""
        if self.trim_above is None or self._sample is not None:
            return
        if seconds >= LONG_PASS_S or anonymous_bytes() > self.trim_above:
            self.model.shrink_arena()

    @contextmanager
    def interruptible(self, check: Callable[[], None]) -> Iterator[None]:
        """Let a function end the passes that this thread asks for meanwhile.

        Args:
            check: called at every block boundary, by any worker; raises to end the pass.
        """
        self._own.check = check
        try:
            yield
        finally:
            self._own.check = None

    def check(self) -> None:
        """Call the function that `interruptible` was given: it may end the caller here."""
        if self._own.check is not None:
            self._own.check()

    def _checks(self) -> Callable[[], None]:
        """Make the function that the workers of a pass call at every block boundary."""
        check = self._own.check
        if check is None:
            return self._watch

        def both() -> None:
            with self._turns.for_holder():
                check()
            self._watch()

        return both

    @contextmanager
    def sampling(self, blocks: frozenset[int], *, alone: bool = False) -> Iterator[None]:
        """Run only these blocks, to measure their memory; the scores are meaningless.

        Args:
            blocks: those that run.
            alone: compute one chunk at a time; batches are cut as for all workers.
        """
        self._sample, self._scheduler.alone = blocks, alone
        try:
            yield
        finally:
            self._sample, self._scheduler.alone = None, False

    @property
    def sampled(self) -> frozenset[int] | None:
        """The blocks that run inside `sampling`; None for all."""
        return self._sample

    def cutter(self, private: bool = False) -> Cutter:
        """Make a cutter that cuts batches by the current limits.

        Args:
            private: has every sequence its own copies of the trainables?
        """
        return Cutter.of(self.bundle.manifest, self.limits, private)

    def _watch(self) -> None:
        """Check the memory; if it is short and one worker is left, stream every block.

        Raises:
            ShortOfMemoryError: memory is short, and there are several workers, or every block is
                streamed already.
            InterruptedRunError: the interpreter is exiting.
        """
        ENVIRONMENT.require_time()
        guard = BUDGET.strictest(self.guard, self._held)
        if guard is not None:
            self._memory.check(guard)

    def _reserve(self, kind: Planned) -> None:
        """Make room for a pass, unless it is a rehearsal, which measures what it takes."""
        if self._sample is not None:
            return
        if self.apart and kind != self._last:
            self.model.shrink_arena()
        self._last = kind
        guard = BUDGET.strictest(self.guard, self._held)
        if guard is not None:
            self._memory.reserve(guard)

    def give_back(self) -> None:
        """Release everything that can be loaded again; called between passes, after a refusal."""
        with self._turns:
            self._memory.give_back()

    def trim(self) -> None:
        """Shrink the arena: release the memory that it holds for shapes of earlier passes."""
        with self._turns:
            self.model.shrink_arena()

    def shrink(self, reason: str) -> None:
        """Halve the workers, then the chunks, and give back what the arena does not need.

        Args:
            reason: what is short, in words.
        Raises:
            BudgetStopError: nothing is left to halve.
        """
        with self._turns:
            self._memory.shrink(reason)
