"""The search for the way to run that a budget allows: predict, rehearse, compare, refuse.

The planner serves tuning and generation. A `Workload` lists the ways to run, computes what they
take and tries them out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgezo_runtime.budget.candidates import Choice, Shape
from edgezo_runtime.budget.ledger import PeakSampler, planned_bytes
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import BudgetStopError, DivergedError, DoesNotFitError
from edgezo_runtime.system.memory import anonymous_bytes, available_bytes, resident_bytes
from edgezo_runtime.system.memory_guard import LEFT, LOW_BYTES
from edgezo_runtime.system.sizes import format_size

UNMEASURED = 2.0
"""Bytes that passes may take per computed byte, before any rehearsal was measured."""

_THREAD_BYTES = 16 << 20
"""Stack and heap that a new thread may ask for."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the planner uses a workload's formula and its rehearsals.

    Attributes:
        expected: bytes that passes are expected to take before any rehearsal, per computed byte.
        carried: bytes expected of other shapes after a rehearsal, per byte that the rehearsal
            implies; None if a rehearsal implies nothing for other shapes. The formula is then a
            lower bound, also of what is measured.
        hope: share of the expected bytes that a rehearsal may turn out to take.
    """

    expected: float
    carried: float | None
    hope: float


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A trial of a workload on a sample of the blocks.

    Attributes:
        run: does the trial.
        extra_bytes: added to what the trial takes to get the bytes of passes; below 0 where the
            trial takes more than passes.
        workers: how many times passes take what the trial takes: in it one worker computes at a
            time. Which stages of several workers coincide would differ from trial to trial. It is
            no whole number where other workers have less to do.
        shared_bytes: the part of what the trial takes that passes take once.
        others: trials of other passes; what takes the most counts.
        holes: share of what workers take that passes take besides, for the holes that chunks of
            other shapes leave in the arena.
        afresh: begins with an empty arena, as the passes do.
    """

    run: Callable[[], None]
    extra_bytes: int
    workers: float = 1
    shared_bytes: int = 0
    others: tuple[Rehearsal, ...] = ()
    holes: float = 0.0
    afresh: bool = False

    def passes(self, taken: int) -> int:
        """Bytes of passes if the trial took this many."""
        own = max(0, taken - self.shared_bytes)
        more = int((self.workers - 1) * own + self.holes * self.workers * own)
        return taken + more + self.extra_bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """The memory that the last rehearsal of a shape took.

    Attributes:
        passes: bytes of passes.
        base: resident bytes of the process without passes, afterwards: the libraries' code that
            passes run, and what the arena cannot release.
        failed: was memory short?
    """

    passes: int
    base: int
    failed: bool


class Workload(Protocol):
    """The work that is planned: tuning or generation."""

    @property
    def engine(self) -> Engine:
        """Runs the bundle."""

    @property
    def policy(self) -> Policy:
        """How the planner uses the formula and the rehearsals."""

    @property
    def budget_bytes(self) -> int:
        """What the process may take."""

    @property
    def start_bytes(self) -> int:
        """Peak of the process so far; 0 where that does not matter."""

    @property
    def sampled_bytes(self) -> int | None:
        """Bytes of the weights that a rehearsal reads: it then starts only if it is predicted to
        fit. None leaves it to the memory guard to stop a rehearsal."""

    def choices(self) -> Sequence[Choice]:
        """The ways to run, the preferred ones first."""

    def computed(self, choice: Choice) -> int:
        """Bytes of passes by the formula, 1 or more."""

    def total(self, choice: Choice, passes: int, base: int) -> int:
        """The predicted peak.

        Args:
            choice: the way to run.
            passes: bytes of passes.
            base: resident bytes of the process without passes.
        """

    def rehearsal(self, choice: Choice, base: int) -> Rehearsal:
        """Prepare the trial of a choice, in a process of `base` resident bytes."""

    def refusal(self, planner: Planner, smallest: Choice) -> DoesNotFitError:
        """Make the error that says that no choice fits.

        Args:
            planner: has the measurements.
            smallest: the choice that takes the least.
        """


class Planner:
    """Finds the first choice of a workload that fits.

    Args:
        workload: the work that is planned.

    Attributes:
        base: resident bytes of the process without passes.
        anonymous: anonymous bytes of the process without passes.
        room: bytes that the machine has for passes.
        measured: what rehearsals took.
    """

    def __init__(
        self, workload: Workload, tell: Callable[[int, int], None] = lambda done, most: None
    ) -> None:
        self._workload = workload
        self._tell = tell
        self._policy = workload.policy
        self._scale = self._policy.expected
        self._failed: set[Shape] = set()
        self.base = resident_bytes()
        self.anonymous = anonymous_bytes()
        self.room = sys.maxsize
        if workload.sampled_bytes is not None:
            self.room = available_bytes() - LOW_BYTES - _THREAD_BYTES * ENVIRONMENT.threads
        self.measured: dict[Shape, Measured] = {}

    def choose(self) -> Choice:
        """Find the first choice that a rehearsal shows to fit.

        A rehearsal must not exceed the budget either. If no memory guard would stop it, and the
        preferred choice may exceed the budget, the smallest choice is rehearsed first, to correct
        the formula.

        Raises:
            DoesNotFitError: no choice fits.
        """
        workload = self._workload
        choices = workload.choices()
        smallest = min(choices, key=self.total)
        if not self._is_safe(choices[0]):
            if self.passes(smallest) / UNMEASURED > self.room:
                raise _full_machine()
            self.measure(smallest)
            if not self._fits(smallest):
                raise workload.refusal(self, smallest)
        for choice in choices:
            known = choice.shape in self.measured
            if known or (self._may_fit(choice) and self._is_safe(choice)):
                if not known:
                    self.measure(choice)
                if self._fits(choice):
                    return choice
        if workload.sampled_bytes is not None:  # the formula may be wrong about it
            self.measure(smallest)
            if self._fits(smallest):
                return smallest
        raise workload.refusal(self, smallest)

    # --- predict ---

    def passes(self, choice: Choice) -> int:
        """Bytes of passes: as measured, or as computed and corrected by other rehearsals."""
        known = self.measured.get(choice.shape)
        computed = self._workload.computed(choice)
        if self._policy.carried is None:
            return computed if known is None else max(computed, known.passes)
        return int(computed * self._scale) if known is None else known.passes

    def total(self, choice: Choice) -> int:
        """The predicted peak."""
        return self._workload.total(choice, self.passes(choice), self.base)

    def _fits(self, choice: Choice) -> bool:
        return self._would_fit(choice, self.passes(choice))

    def _may_fit(self, choice: Choice) -> bool:
        """Would the choice fit if it took less than is expected?"""
        return self._would_fit(choice, int(self.passes(choice) * self._policy.hope))

    def _would_fit(self, choice: Choice, passes: int) -> bool:
        workload = self._workload
        total = workload.total(choice, passes, self.base)
        fits = total <= planned_bytes(workload.budget_bytes) and passes <= self.room
        return (
            fits and workload.start_bytes <= workload.budget_bytes and not self.has_failed(choice)
        )

    def _most(self, choice: Choice) -> int:
        """How many rehearsals there are at most, with this one and those before."""
        shapes = {own.shape for own in self._workload.choices() if self._may_fit(own)}
        return len(self.measured.keys() | shapes | {choice.shape})

    def has_failed(self, choice: Choice) -> bool:
        """Was memory ever short in a rehearsal of this shape?"""
        return choice.shape in self._failed

    def _is_safe(self, choice: Choice) -> bool:
        """Will a rehearsal keep below the budget, or will the memory guard stop it?"""
        sampled = self._workload.sampled_bytes
        if sampled is None:
            return True
        passes = self.passes(choice)
        rehearsed = self.base + sampled + passes
        return rehearsed <= self._workload.budget_bytes and passes <= self.room

    # --- measure ---

    def measure(self, choice: Choice, *, guarded: bool | None = None) -> None:
        """Rehearse a choice, and correct the formula by what it takes.

        Args:
            choice: the way to run.
            guarded: leave the memory guard on; None does so for a workload without
                `sampled_bytes`. Without the guard the whole need is measured.
        """
        self._tell(len(self.measured), self._most(choice))
        engine, policy = self._workload.engine, self._policy
        if guarded is None:
            guarded = self._workload.sampled_bytes is None
        rehearsal = self._workload.rehearsal(choice, self.base)
        engine.limits, engine.streamed = choice.limits, choice.streamed
        engine.give_back()
        before = anonymous_bytes()
        failed, passes = False, 0
        for trial in (rehearsal, *rehearsal.others):
            if trial.afresh:
                engine.give_back()
            short, peak = self._run(trial, guarded=guarded)
            failed, passes = failed or short, max(passes, trial.passes(peak - before))
        computed = self._workload.computed(choice)
        if failed:
            self._failed.add(choice.shape)
        if self.has_failed(choice):
            passes = max(passes, int(computed * self._scale))
        elif policy.carried is not None:
            self._scale = policy.carried * passes / computed
        engine.give_back()
        self.base, self.anonymous = resident_bytes(), anonymous_bytes()
        self.measured[choice.shape] = Measured(passes, self.base, failed)

    def _run(self, rehearsal: Rehearsal, *, guarded: bool) -> tuple[bool, int]:
        """Run a rehearsal.

        Returns:
            Whether memory was short, and the peak of anonymous memory.
        """
        engine = self._workload.engine
        guard, failed = engine.guard, False
        if not guarded:
            engine.guard = None
        try:
            with PeakSampler() as sampler:
                rehearsal.run()
        except DivergedError:
            pass  # the work itself will say so
        except BudgetStopError:
            failed = True
        finally:
            engine.guard = guard
        failed = failed or bool(engine.reliefs)  # the arena's limit made chunks smaller
        engine.reliefs.clear()
        return failed, sampler.peak


def _full_machine() -> DoesNotFitError:
    return DoesNotFitError(
        f"{format_size(available_bytes())} {LEFT} is too little to begin with; end other "
        f"programs, or raise the limit ('ulimit -v', the control group's)"
    )
