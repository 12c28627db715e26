"""Memory refused at every place that a short run comes to: the same bits, or a clean stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from edgezo_runtime.devices.faults import ShortOfMemoryError
from edgezo_runtime.engine import backward, first_order_pass, forward
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.engine.perturbed import PerturbedParams
from edgezo_runtime.errors import BudgetStopError
from edgezo_runtime.evaluation import objectives
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.system.memory_guard import MemoryGuard
from edgezo_runtime.training import probe_evaluator, trajectory
from edgezo_runtime.training import run_log as run_log_module
from edgezo_runtime.training.training_state import TrainingState
from tests.c_library import build
from tests.crash.sampling import sample
from tests.runtime import failing_allocator
from tests.runtime.refused_runs import CONFIGS, STEPS, Refusals, Run, digest

MIB = 2**20
ROOT = Path(__file__).parents[3]
SMALLEST = 8192
"""Bytes of allocations that fail. Smaller ones are numpy's buffers in indexing and reductions, that
answer with SystemError or a broken pointer: against these only a margin helps."""

MOST = 3000
"""More calls than a run here makes."""

EVERY, FEW = 48, 12
"""Where a run asks more often than a few times, one call in so many is refused."""


@pytest.fixture(autouse=True)
def _fast(unsynced, monkeypatch):
    """Wait for no disk, and collect no garbage of torch's a thousand times over."""
    monkeypatch.setattr("edgezo_runtime.engine.memory_relief.release_freed", lambda: None)


@pytest.fixture(params=CONFIGS)
def run(request, exported, tmp_path) -> Run:
    bundle = exported("llama").bundle("int8").bundle
    return Run(bundle, CONFIGS[request.param], tmp_path)


@pytest.fixture(scope="module")
def undisturbed() -> Callable[[Run], list[str]]:
    """Digests of the run that nothing happens to; each configuration runs once."""
    found: dict[str, list[str]] = {}

    def digests(run: Run) -> list[str]:
        kind = kind_of(run)
        if kind not in found:
            found[kind] = run.undisturbed()
        return found[kind]

    return digests


PLACES: dict[str, tuple[object, str, Callable[[], BaseException]]] = {
    "a graph": (forward, "run_graph", lambda: ShortOfMemoryError("onnxruntime was refused memory")),
    "an OrtValue": (LoadedModel, "value", MemoryError),
    "a copy of the trainables": (PerturbedParams, "copies", MemoryError),
    "the losses": (objectives, "example_losses", MemoryError),
    "a graph back": (
        backward,
        "run_graph",
        lambda: ShortOfMemoryError("onnxruntime was refused memory"),
    ),
    "a way back": (first_order_pass, "score_gradients", MemoryError),
    "the code": (probe_evaluator, "code_matrices", MemoryError),
    "a gradient": (Frame, "gather", MemoryError),
    "a record": (trajectory, "StepRecord", MemoryError),
    "the average": (TrainingState, "_fold_average", MemoryError),
    "a snapshot": (run_log_module, "save_snapshot", MemoryError),
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


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_refused_memory_changes_no_bit(run, undisturbed, place):
    """Refused once, and for ever from some call on."""
    if place in ("a way back", "a graph back") and run.config.first_order != 1:
        pytest.skip("no step goes back")
    expected = undisturbed(run)
    ending, refusals = run.ending("none", refused(place, MOST), expected)
    assert ending == "done"
    assert 0 < refusals.seen < MOST
    calls = sample(range(refusals.seen), EVERY if refusals.seen > FEW else 1)
    for lasting in (False, True):
        endings: list[str] = []
        for number in calls:
            plan = refused(place, number, lasting=lasting)
            ending, refusals = run.ending(f"run{number}-{lasting}", plan, expected)
            endings.append(ending)
            assert refusals.reached
        if not lasting and place != "a record":
            assert set(endings) == {"done"}
        if lasting and place != "a snapshot":
            assert set(endings) == {"stopped"}


# --- allocations that really fail ---


@pytest.mark.slow
@pytest.mark.parametrize("how", ["once", "lasting"])
def test_an_allocation_that_fails_changes_no_bit(run, tmp_path, how):
    """Pins a state that was not saved, because safetensors ends a process short of memory."""
    library = build(tmp_path, failing_allocator.SOURCE)
    args = (run.bundle.root, tmp_path / "runs", kind_of(run), how, SMALLEST)
    done = child("tests.runtime.allocator_runs", *args, LD_PRELOAD=str(library))
    assert done.returncode == 0, done.stderr[-3000:]
    endings = json.loads(done.stdout)
    assert sum(endings.values()) >= 4
    assert (endings.keys() == {"done"}) == (how == "once")


@pytest.mark.slow
def test_an_arena_of_any_size_changes_no_bit(run, undisturbed, tmp_path):
    expected = undisturbed(run)
    found = {}
    for exponent in sample(range(10, 22), 4):
        folder = tmp_path / str(exponent)
        args = (run.bundle.root, folder, kind_of(run), 3 << exponent)
        done = child("tests.runtime.arena_run", *args)
        assert done.returncode == 0, done.stderr[-3000:]
        found[exponent] = done.stdout.strip()
        if (folder / "run").exists() and found[exponent] != expected[-1]:
            with Run(run.bundle, run.config, folder).open("run", resume=True) as tuner:
                for _ in tuner:
                    pass
                assert digest(tuner) == expected[-1]
    assert set(found.values()) <= {expected[-1], "BudgetStopError", "DoesNotFitError"}
    assert found[10] != expected[-1]
    assert found[21] == expected[-1]


def kind_of(run: Run) -> str:
    """Key of a run's configuration."""
    return next(key for key, config in CONFIGS.items() if config == run.config)


def child(module: str, *args: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the tests in a fresh process."""
    paths = [ROOT, ROOT / "export", ROOT / "runtime"]
    env = {**os.environ, **env, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-m", module, *map(str, args)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )


# --- memory of the machine that falls ---


@pytest.mark.slow
@pytest.mark.parametrize("looks", range(0, 24, 3))
def test_a_machine_that_runs_out_stops_the_run(run, undisturbed, looks, monkeypatch):
    """At the n-th look at the machine, and from then on, too little is left."""
    monkeypatch.setattr("edgezo_runtime.system.memory_guard.AVAILABLE_EVERY_S", 0.0)
    expected = undisturbed(run)
    left = iter([2**40] * looks)
    with run.open("run") as tuner:
        tuner.run.engine.guard = MemoryGuard(
            2**40, resident=lambda: 0, swapped=lambda: 0, available=lambda: next(left, MIB)
        )
        with suppress(BudgetStopError):
            for _ in tuner:
                pass
        assert digest(tuner) == expected[tuner.step_number]
        reliefs = tuner.run.engine.reliefs
        tuner.run.engine.guard = None
        assert not reliefs or "1 of 2 workers" in reliefs[0]
        assert len(reliefs) < 2 or "streaming all 2 blocks" in reliefs[1]
    with run.open("run", resume=True) as tuner:
        for _ in tuner:
            pass
        assert digest(tuner) == expected[STEPS]
