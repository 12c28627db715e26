"""The search on a workload of three choices, whose passes take what the test says."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from edgezo_runtime.budget import planner as module
from edgezo_runtime.budget.candidates import Choice
from edgezo_runtime.budget.ledger import budget_for
from edgezo_runtime.budget.planner import Measured, Planner, Policy, Rehearsal
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.errors import BudgetStopError, DivergedError, DoesNotFitError

BASE = 1000
LARGE, MIDDLE, SMALL = (Choice(Limits(1, size), frozenset(), 1.0) for size in (64, 32, 16))
CARRY = Policy(expected=2.0, carried=1.5, hope=0.5)
ALONE = Policy(expected=1.0, carried=None, hope=1.0)


class Work:
    """Passes are computed to take ten bytes per token of a chunk; what they take is in `taken`."""

    def __init__(self, budget: int, policy: Policy, sampled_bytes: int | None = 0) -> None:
        self.budget_bytes = budget
        self.policy = policy
        self.sampled_bytes = sampled_bytes
        self.start_bytes = 0
        self.engine: Any = types.SimpleNamespace(
            limits=None, streamed=None, guard="guard", reliefs=[], give_back=lambda: None
        )
        self.taken = {64: 640, 32: 320, 16: 160}
        self.extra_bytes = 0
        self.doing: Callable[[], None] = lambda: None
        self.rehearsed: list[int] = []
        self.guards: list[object] = []

    def choices(self) -> list[Choice]:
        return [LARGE, MIDDLE, SMALL]

    def computed(self, choice: Choice) -> int:
        return 10 * choice.limits.chunk_tokens

    def total(self, choice: Choice, passes: int, base: int) -> int:
        return base + passes

    def rehearsal(self, choice: Choice, base: int) -> Rehearsal:
        def run() -> None:
            self.rehearsed.append(choice.limits.chunk_tokens)
            self.guards.append(self.engine.guard)
            self.doing()

        return Rehearsal(run, self.extra_bytes)

    def refusal(self, planner: Planner, smallest: Choice) -> DoesNotFitError:
        return DoesNotFitError(f"{smallest.limits.chunk_tokens} takes {planner.total(smallest)}")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Work]:
    """Makes the workload of a process of 1,000 bytes, 100 of them anonymous."""
    made: list[Work] = []

    def make(*args: Any) -> Work:
        made.append(Work(*args))
        return made[-1]

    @contextmanager
    def sampler() -> Iterator[types.SimpleNamespace]:
        engine = made[-1].engine
        yield types.SimpleNamespace(peak=100 + made[-1].taken[engine.limits.chunk_tokens])

    monkeypatch.setattr(module, "PeakSampler", sampler)
    monkeypatch.setattr(module, "resident_bytes", lambda: BASE)
    monkeypatch.setattr(module, "anonymous_bytes", lambda: 100)
    monkeypatch.setattr(module, "available_bytes", lambda: 10**12)
    return make


def test_the_preferred_choice_where_it_fits(work: Callable[..., Work]) -> None:
    """1,000 bytes and twice 640: a budget of 2,280 is enough to rehearse."""
    given = work(2280, CARRY)
    planner = Planner(given)
    assert planner.total(LARGE) == 2280
    assert planner.choose() == LARGE
    assert given.rehearsed == [64]
    assert planner.measured == {LARGE.shape: Measured(640, BASE, failed=False)}
    assert planner.total(LARGE) == 1640


def test_a_rehearsal_corrects_the_formula(work: Callable[..., Work]) -> None:
    """The smallest takes 80 where 160 were computed: the others are expected to take 1.5 * 0.5 of
    what was computed."""
    given = work(budget_for(BASE + 480), CARRY)
    given.taken = {64: 440, 32: 230, 16: 80}
    planner = Planner(given)
    assert planner.passes(LARGE) == 1280
    planner.measure(SMALL)
    assert [planner.passes(choice) for choice in given.choices()] == [480, 240, 80]
    assert planner.choose() == LARGE
    assert given.rehearsed == [16, 64]


def test_what_a_rehearsal_cannot_show_is_added(work: Callable[..., Work]) -> None:
    given = work(10**6, CARRY)
    given.extra_bytes = 7
    planner = Planner(given)
    planner.measure(LARGE)
    assert planner.passes(LARGE) == 647


def test_the_smallest_comes_first_unless_there_is_plenty(work: Callable[..., Work]) -> None:
    """A budget of 2,279 is not surely enough to rehearse the largest: 1,000 bytes and twice 640."""
    given = work(2279, CARRY)
    assert Planner(given).choose() == LARGE
    assert given.rehearsed == [16, 64]


def test_what_may_exceed_the_budget_is_not_tried(work: Callable[..., Work]) -> None:
    """After the smallest, 1.5 * 640 is expected of the largest: it would fit, but might not."""
    given = work(budget_for(BASE + 640), CARRY)
    assert Planner(given).choose() == MIDDLE
    assert given.rehearsed == [16, 32]


def test_nothing_fits(work: Callable[..., Work]) -> None:
    given = work(1100, CARRY)
    with pytest.raises(DoesNotFitError, match=r"^16 takes 1160$"):
        Planner(given).choose()
    assert given.rehearsed == [16]


def test_a_full_machine_is_refused_before_any_rehearsal(
    work: Callable[..., Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: module.LOW_BYTES)
    given = work(10**6, CARRY)
    with pytest.raises(DoesNotFitError, match="left to this process by the machine"):
        Planner(given).choose()
    assert given.rehearsed == []


def test_a_start_above_the_budget_fits_nothing(work: Callable[..., Work]) -> None:
    given = work(5000, CARRY)
    given.start_bytes = 5001
    with pytest.raises(DoesNotFitError):
        Planner(given).choose()


def test_a_formula_that_is_a_lower_bound(work: Callable[..., Work]) -> None:
    given = work(budget_for(BASE + 640), ALONE, None)
    given.taken = {64: 641, 32: 100, 16: 160}
    planner = Planner(given)
    assert planner.choose() == MIDDLE
    assert given.rehearsed == [64, 32]
    assert [planner.passes(choice) for choice in given.choices()] == [641, 320, 160]


def test_a_workload_without_sample_is_guarded(work: Callable[..., Work]) -> None:
    given = work(1100, ALONE, None)
    planner = Planner(given)
    with pytest.raises(DoesNotFitError):
        planner.choose()
    assert given.rehearsed == []  # by the formula none fits
    planner.measure(SMALL)
    planner.measure(SMALL, guarded=False)
    assert given.guards == ["guard", None]
    assert given.engine.guard == "guard"


@pytest.mark.parametrize("relief", [False, True])
def test_short_memory_rules_a_choice_out(work: Callable[..., Work], relief: bool) -> None:
    """Either the pass stops, or the engine had to do something about it."""
    given = work(10**6, CARRY)

    def short() -> None:
        if given.engine.limits.chunk_tokens == 64:
            given.engine.reliefs.append("smaller chunks")
            if not relief:
                raise BudgetStopError("short")

    given.doing = short
    planner = Planner(given)
    assert planner.choose() == MIDDLE
    assert planner.has_failed(LARGE)
    assert not planner.has_failed(MIDDLE)
    assert planner.measured[LARGE.shape] == Measured(1280, BASE, failed=True)  # twice the formula
    assert given.engine.reliefs == []
    assert given.engine.guard == "guard"
    assert given.guards == [None, None]


def test_a_model_that_diverges_is_measured(work: Callable[..., Work]) -> None:
    given = work(10**6, CARRY)

    def diverge() -> None:
        raise DivergedError("nan")

    given.doing = diverge
    assert Planner(given).choose() == LARGE


@pytest.mark.parametrize("policy", [CARRY, ALONE])
def test_the_process_is_measured_after_a_rehearsal(
    work: Callable[..., Work], monkeypatch: pytest.MonkeyPatch, policy: Policy
) -> None:
    """The first rehearsal maps code of libraries that every later pass runs: a budget that was
    named without it did not suffice."""
    given = work(10**6, policy)
    resident = [1000]
    given.doing = lambda: resident.append(1010)
    monkeypatch.setattr(module, "resident_bytes", lambda: resident[-1])
    planner = Planner(given)
    assert planner.base == 1000
    planner.measure(LARGE)
    assert planner.base == planner.measured[LARGE.shape].base == 1010


def test_one_worker_counts_for_all() -> None:
    """Of 100 bytes 40 are shared; three workers, a half for holes, and seven that no trial sees."""
    trial = Rehearsal(lambda: None, 7, workers=3, shared_bytes=40, holes=0.5)
    assert trial.passes(100) == 40 + 3 * 60 + 3 * 30 + 7
    assert Rehearsal(lambda: None, -7).passes(100) == 93


def test_the_trial_that_takes_most_counts(work: Callable[..., Work]) -> None:
    given = work(10**6, CARRY)
    alone = given.rehearsal(LARGE, BASE)
    given.rehearsal = lambda choice, base: replace(  # type: ignore[method-assign]
        alone, others=(replace(alone, extra_bytes=11), replace(alone, extra_bytes=5))
    )
    planner = Planner(given)
    planner.measure(LARGE)
    assert planner.measured[LARGE.shape].passes == 640 + 11
    assert given.rehearsed == [64] * 3
