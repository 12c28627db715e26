"""What the tuners of one process share: blocks, turns, workers, and the smallest budget."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.scheduler import Scheduler
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import BudgetStopError, UsageError
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.system.memory_guard import BUDGET, MemoryGuard
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, bits, run_to_the_end

pytestmark = pytest.mark.usefixtures("unsynced")

CONFIGS = [
    method_config(method, lr=0.01, eps=0.01, steps=12, max_time_s=0, batch_size=2, blocks="all")
    for method in ("zo-sgd", "zo-adam", "mezo-svrg")
]


@pytest.mark.slow
def test_tuners_beside_each_other_end_as_alone(bundle: Bundle, tmp_path: Path) -> None:
    """Three threads on one model: every run has the bits it has by itself."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    alone = [
        run_to_the_end(bundle, examples, config, tmp_path / f"alone-{number}")
        for number, config in enumerate(CONFIGS)
    ]
    tuners = [
        Tuner.open(bundle, examples, config, tmp_path / f"together-{number}")
        for number, config in enumerate(CONFIGS)
    ]
    assert len({id(tuner.run.engine.model) for tuner in tuners}) == 1
    for background in [tuner.run_in_background() for tuner in tuners]:
        assert background.join(60)
    assert [bits(tuner) for tuner in tuners] == alone
    for tuner in tuners:
        tuner.close()


def test_passes_take_turns(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never two at once, so their memory does not add up."""
    engines = [Engine(bundle), Engine(bundle)]
    inside, most = [0], [0]
    run = Scheduler.run

    def counted(self, *args):  # type: ignore[no-untyped-def]
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            run(self, *args)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(Scheduler, "run", counted)
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    from edgezo_runtime.evaluation.evaluate import evaluate

    def work(engine: Engine) -> None:
        for _ in range(10):
            evaluate(engine, bundle.trainables(), examples, 2, scope="all")

    threads = [threading.Thread(target=work, args=[engine]) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_model_goes_with_its_last_engine(bundle: Bundle) -> None:
    one, other = Engine(bundle), Engine(bundle)
    model = weakref.ref(one.model)
    assert other.model is one.model
    del one
    gc.collect()
    assert model() is not None
    del other
    gc.collect()
    assert model() is None


def test_workers_end_with_the_last_engine(bundle: Bundle) -> None:
    gc.collect()
    users = ENVIRONMENT._users
    one, other = Engine(bundle), Engine(bundle)
    pool = ENVIRONMENT.workers
    assert ENVIRONMENT._users == users + 2
    one.close()
    one.close()
    assert ENVIRONMENT._users == users + 1
    assert ENVIRONMENT.workers is pool
    del other
    gc.collect()
    assert ENVIRONMENT._users == users
    again = Engine(bundle)
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    from edgezo_runtime.evaluation.evaluate import evaluate

    for engine in (again, one):  # one that was closed can still be asked
        assert np.isfinite(evaluate(engine, bundle.trainables(), examples, 2, scope="all").loss)


def test_the_smallest_budget_holds_for_all(bundle: Bundle, tmp_path: Path) -> None:
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)

    def opened(name: str, budget: str | None) -> Tuner:
        return Tuner.open(bundle, examples, CONFIGS[0], tmp_path / name, budget=budget)

    with opened("large", "8GB") as large, opened("none", None) as none:
        large.step()
        none.step()
        with opened("small", "6GB") as small:
            guard = small.run.engine.guard
            assert guard is not None
            for tuner in (large, none, small):
                assert BUDGET.strictest(tuner.run.engine.guard, tuner.run.engine._held) is guard
            guard.resident = lambda: 7 * 10**9  # below the large budget, beyond the small one
            for tuner in (large, none):
                with pytest.raises(
                    BudgetStopError, match=r"7\.00 GB resident of a budget of 6\.00"
                ):
                    tuner.step()
                assert tuner.step_number == 1
        for tuner in (large, none):
            tuner.step()
        assert BUDGET.strictest(none.run.engine.guard, None) is large.run.engine.guard


def test_a_tuner_that_does_not_get_its_folder_leaves_nothing(
    bundle: Bundle, tmp_path: Path
) -> None:
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    with Tuner.open(bundle, examples, CONFIGS[0], tmp_path):
        users, guards = ENVIRONMENT._users, BUDGET._guards
        with pytest.raises(UsageError, match="is tuning in this folder") as refused:
            Tuner.open(bundle, examples, CONFIGS[0], tmp_path, budget="6GB")
        assert refused.tb is not None  # as long as an app looks at the error
        assert (ENVIRONMENT._users, BUDGET._guards) == (users, guards)


def test_a_guard_that_rehearses_is_not_watched_by_itself() -> None:
    own, other = MemoryGuard(10), MemoryGuard(20)
    BUDGET.hold(own)
    BUDGET.hold(other)
    try:
        assert BUDGET.strictest(None, own) is other
        assert BUDGET.strictest(own, own) is own
    finally:
        BUDGET.release(own)
        BUDGET.release(other)
