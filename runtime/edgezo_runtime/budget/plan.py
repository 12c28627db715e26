"""The plan of a tuning run: the fastest way to run that a budget allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgezo_runtime.budget.growth import Growth
from edgezo_runtime.budget.ledger import Ledger, budget_for, planned_bytes
from edgezo_runtime.budget.planner import Planner
from edgezo_runtime.budget.tuning_workload import TuningWorkload
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.system.memory import peak_rss_bytes

if TYPE_CHECKING:
    from edgezo_runtime.budget.candidates import Choice
    from edgezo_runtime.data.example_set import ExampleSet
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.training.run import Run

_WORTHWHILE = 0.97
"""Faster choices are named where they take less than this share of the time."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What a larger budget would bring.

    Attributes:
        budget_bytes: the smallest budget that gives this speedup.
        speedup: time per step as planned, divided by the time per step with that budget.
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
        cache_bytes: size of the cache on disk; its pages do not count as memory of the process.
        smallest_bytes: the smallest budget that is enough.
        gains: what larger budgets would bring, the smallest first.
        weights_bytes: weights of all blocks.
        anonymous_bytes: bytes of the predicted peak that are not mapped from a file.
        growth: what passes take in every way to run, also with heavier rows.
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
    growth: Growth

    @property
    def predicted_bytes(self) -> int:
        """The predicted peak."""
        return self.ledger.total

    @property
    def reserve_bytes(self) -> int:
        """What the plan leaves of the budget."""
        return self.budget_bytes - self.predicted_bytes

    def apply(self, engine: Engine) -> None:
        """Have an engine run as planned."""
        engine.limits = self.choice.limits
        engine.streamed = self.choice.streamed
        engine.trim_above = self.anonymous_bytes
        engine.apart = self.growth.apart
        engine.reservation = self.growth.reservation

    def words(self) -> str:
        """Describe the choice for people."""
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
    run: Run,
    budget_bytes: int,
    *,
    others: Sequence[ExampleSet] = (),
    eval_batch_size: int = 32,
    process_bytes: int = 0,
    data_bytes: int = 0,
    start_bytes: int = 0,
    answer_tokens: int = 0,
    tell: Callable[[int, int], None] = lambda done, most: None,
) -> Plan:
    """Plan a run that has not started.

    Args:
        run: the run; gives up its first-order steps if they do not fit and it does not need them.
        budget_bytes: what the process may take.
        others: sets that the run is evaluated on.
        eval_batch_size: examples per pass of an evaluation.
        process_bytes: what the process took before data were read, for the ledger; 0 if unknown.
        data_bytes: what the data took.
        start_bytes: peak of the process so far if the budget covers its whole life; 0 if the
            budget covers the run only.
        answer_tokens: prompt and answer of the longest text that is generated between steps.
        tell: given the rehearsals that are done, and how many there are at most.
    Raises:
        DoesNotFitError: the budget is too small for any way to run.
        BundleError: the weights' header cannot be read.
    """
    before = (process_bytes, data_bytes, start_bytes)

    def plan() -> Plan:
        workload = TuningWorkload(run, budget_bytes, others, eval_batch_size, before, answer_tokens)
        return plan_workload(workload, tell)

    try:
        try:
            return plan()
        except DoesNotFitError:
            if not run.trajectory.drop_first_order():
                raise
            run.engine.give_back()
            return plan()
    finally:
        run.engine.reliefs.clear()


def plan_workload(
    workload: TuningWorkload, tell: Callable[[int, int], None] = lambda done, most: None
) -> Plan:
    """Plan the fastest way to run that fits.

    Args:
        workload: the run.
        tell: given the rehearsals that are done, and how many there are at most.
    Raises:
        DoesNotFitError: no way to run fits.
    """
    planner = Planner(workload, tell)
    choice = planner.choose()
    passes = planner.passes(choice)
    spare = planned_bytes(workload.budget_bytes) - planner.total(choice)
    choice, more = workload.widened(choice, spare)
    ledger = workload.ledger(choice, passes + more, planner.base)
    if workload.start_bytes:  # a rehearsal may have been the peak so far
        ledger = dataclasses.replace(ledger, start=peak_rss_bytes())
    choices = workload.choices()
    least = min(ledger.steady - more, *(planner.total(other) for other in choices))
    return Plan(
        budget_bytes=workload.budget_bytes,
        num_blocks=len(workload.blocks),
        choice=choice,
        ledger=ledger,
        cache_bytes=workload.cache_bytes(),
        smallest_bytes=max(workload.start_bytes, budget_for(least)),
        gains=tuple(_gains(workload, planner, choices, choice)),
        weights_bytes=sum(workload.blocks),
        anonymous_bytes=planner.anonymous + ledger.activations,
        growth=workload.growth(planner),
    )


def _gains(
    workload: TuningWorkload, planner: Planner, choices: Sequence[Choice], chosen: Choice
) -> Iterator[Gain]:
    """Faster choices by the budget they need, each faster than the one before."""
    best = chosen.cost
    by_need = sorted((planner.total(c), c.cost, number) for number, c in enumerate(choices))
    for total, cost, number in by_need:
        needed = max(workload.start_bytes, budget_for(total))
        if cost < best * _WORTHWHILE and needed > workload.budget_bytes:
            best = cost
            yield Gain(needed, chosen.cost / cost, choices[number])
