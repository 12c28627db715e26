"""Memory refused at every place that a short run comes to: the same bits, or a clean stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime import forward
from edgezo_runtime import tuner as tuner_module
from edgezo_runtime.errors import BudgetStopError
from edgezo_runtime.guard import MemoryGuard
from edgezo_runtime.loaded_model import LoadedModel, ShortOfMemoryError
from edgezo_runtime.perturbed import PerturbedParams
from tests.runtime.refused_runs import CONFIGS, STEPS, Refusals, Run, digest

MIB = 2**20
MOST = 3000
"""More calls than a run here makes."""


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    """Wait for no disk, and collect no garbage of torch's a thousand times over."""
    monkeypatch.setattr("edgezo_runtime.files.os.fsync", lambda descriptor: None)
    monkeypatch.setattr("edgezo_runtime.loaded_model.release_freed", lambda: None)


@pytest.fixture(params=CONFIGS)
def run(request, exported, tmp_path) -> Run:
    bundle = exported("llama").bundle("int8").bundle
    return Run(bundle, CONFIGS[request.param], tmp_path)


PLACES: dict[str, tuple[object, str, Callable[[], BaseException]]] = {
    "a graph": (forward, "run_graph", lambda: ShortOfMemoryError("onnxruntime was refused memory")),
    "an OrtValue": (LoadedModel, "value", MemoryError),
    "a copy of the trainables": (PerturbedParams, "copies", MemoryError),
    "the losses": (tuner_module, "example_losses", MemoryError),
    "the code": (tuner_module, "code_matrices", MemoryError),
    "a gradient": (tuner_module, "gradient", MemoryError),
    "a record": (tuner_module, "StepRecord", MemoryError),
    "the average": (tuner_module.Tuner, "_fold_average", MemoryError),
    "a snapshot": (tuner_module, "save_snapshot", MemoryError),
}
"""What asks for memory: whose attribute it is, and what it raises when it gets none."""


@contextmanager
def refused(place: str, first: int, *, lasting: bool = False) -> Iterator[Refusals]:
    """Refuse memory at one of `PLACES`."""
    owner, name, error = PLACES[place]
    plan = Refusals(first, lasting, error)
    plain = getattr(owner, name)

    def asking(*args, **kwargs):
        plan.ask()
        return plain(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, asking)
        yield plan


# --- every call, one at a time, and from it on ---


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("place", PLACES)
def test_refused_memory_changes_no_bit(run, place, lasting):
    expected = run.undisturbed()
    endings: list[str] = []
    for number in count():
        plan = refused(place, number, lasting=lasting)
        ending, refusals = run.ending(f"run{number}", plan, expected)
        endings.append(ending)
        assert refusals.seen < MOST
        if not refusals.reached:
            break
    assert endings.pop() == "done"
    if not lasting and place != "a record":
        assert set(endings) == {"done"}
    if lasting and place != "a snapshot":
        assert set(endings) == {"stopped"}
