"""Of a run the planner uses what `PlannedRun` lists: all of that, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.budget import planned_run as module
from edgezo_runtime.budget.plan import make_plan
from edgezo_runtime.budget.planned_run import PlannedRun
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.journal.run_folder import RunFolder

PARTS = {
    "step_evaluator": module.PlannedSteps,
    "layout": module.Layout,
    "first_order": module.FirstOrderTensors,
    "state": module.State,
    "probe_evaluator": module.CacheMaker,
}
CONFIG = TuneConfig(steps=3, max_time_s=0, batch_size=4)


class Only:
    """An object of which nothing but the members of a protocol can be read."""

    def __init__(self, whole: Any, protocol: type, used: set[tuple[str, str]]) -> None:
        self._whole, self._protocol, self._used = whole, protocol, used

    def __getattr__(self, name: str) -> Any:
        listed = [member for member in vars(self._protocol) if not member.startswith("_")]
        assert name in listed, f"{self._protocol.__name__} does not list {name}"
        self._used.add((self._protocol.__name__, name))
        value = getattr(self._whole, name)
        if name in PARTS and value is not None:
            return Only(value, PARTS[name], self._used)
        return value


def members() -> set[tuple[str, str]]:
    return {
        (protocol.__name__, name)
        for protocol in (PlannedRun, *PARTS.values())
        for name in vars(protocol)
        if not name.startswith("_")
    }


def test_a_run_is_used_as_listed(exported: Any, tmp_path: Any) -> None:
    """A run with first-order steps: they are dropped where they do not fit."""
    bundle = exported("llama").bundle("int8").bundle
    rows = random_rows(8, 6, bundle.manifest.model.vocab_size, (5, 11))
    tuner = Tuner(Engine(bundle), rows, CONFIG, RunFolder(tmp_path / "run"))
    assert tuner.num_first_order_blocks
    used: set[tuple[str, str]] = set()
    run: Any = Only(tuner, PlannedRun, used)
    found = make_plan(run, 8 * 10**9, others=[rows])
    made = make_plan(tuner, 8 * 10**9, others=[rows])
    assert found.choice == made.choice
    assert found.cache_bytes == made.cache_bytes
    assert tuner.num_first_order_blocks
    with pytest.raises(DoesNotFitError):
        make_plan(run, 10**7)
    assert not tuner.num_first_order_blocks
    assert used == members()
