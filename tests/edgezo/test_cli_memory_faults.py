"""`edgezo tune` where memory is really short: exit code 0 with the same adapter, 3 or 4."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.budget.plan import Plan, make_plan
from edgezo_runtime.system.memory_guard import MemoryGuard
from edgezo_runtime.training.run import Run
from tests.edgezo.conftest import Invoke, Tiny, start
from tests.edgezo.limited_children import Group, address_space, control_group, launch
from tests.edgezo.test_cli_tune import tune_args, wait_for_steps

MIB = 2**20


@pytest.fixture(autouse=True)
def _no_garbage_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting it takes a third of a second each time."""
    monkeypatch.setattr("edgezo_runtime.engine.memory_relief.release_freed", lambda: None)


def check_ending(
    done: subprocess.CompletedProcess[str], tiny: Tiny, invoke: Invoke, expected: str
) -> int:
    """The right adapter, a saved state that leads to it, or a refusal; returns the exit code."""
    assert done.returncode in (0, 3, 4), (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    found = done.stdout
    if done.returncode == 4:
        assert json.loads(Path("run/receipt.json").read_text())["status"] == "out-of-memory"
        found = invoke("tune", "--resume", "-o", "run", "--budget", "8GB", "--json").stdout
    if done.returncode != 3:
        assert json.loads(found)["adapter_sha256"] == expected
    return done.returncode


def undisturbed(invoke: Invoke, tiny: Tiny, *more: object) -> str:
    """Digest of the adapter of a run that nothing happens to."""
    done = invoke(*tune_args(tiny, "--json", "-o", "whole", *more))
    return str(json.loads(done.stdout)["adapter_sha256"])


# --- refusals in this process ---


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 1])
def test_memory_refused_in_an_evaluation(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Before tuning, and after it."""
    from edgezo.cli.tune import evaluations

    expected = undisturbed(invoke, tiny)
    evaluate = evaluations.evaluate
    left = iter([False] * calls)

    def refused(*args: Any, **options: Any) -> Any:
        if next(left, True):
            raise MemoryError
        return evaluate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(evaluations, "evaluate", refused)
        done = invoke(*tune_args(tiny), code=4)
    assert f"the state after {4 * calls} steps is saved in run" in done.stderr
    again = json.loads(invoke("tune", "--resume", "-o", "run", "--json").stdout)
    assert again["adapter_sha256"] == expected
    assert again["accuracy_after"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("what", ["make_adapter", "Session._receipt"])
def test_memory_refused_when_the_state_is_saved(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    expected = undisturbed(invoke, tiny)

    def refused(*args: Any, **options: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(f"edgezo.cli.tune.session.{what}", refused)
        assert "--resume" in invoke(*tune_args(tiny), code=4).stderr
    again = json.loads(invoke("tune", "--resume", "-o", "run", "--json").stdout)
    assert again["adapter_sha256"] == expected


@pytest.mark.parametrize(
    "where",
    [
        "edgezo.cli.tune.job.Bundle.open",
        "edgezo_runtime.app.open_run.read_given",
        "edgezo_runtime.app.open_run.make_plan",
        "edgezo_runtime.app.open_run.limited_engine",
    ],
)
def test_memory_refused_before_the_run_begins(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refused(*args: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(where, refused)
    assert "too short to begin" in invoke(*tune_args(tiny), code=3).stderr
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("looks", [0, 3, 9, 20])
def test_a_machine_that_runs_out(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    expected = undisturbed(invoke, tiny)
    monkeypatch.setattr("edgezo_runtime.system.memory_guard.AVAILABLE_EVERY_S", 0.0)
    left = iter([2**40] * looks)
    guard = MemoryGuard(2**40, available=lambda: next(left, MIB))

    def watched(run: Run, **options: Any) -> Plan:
        made = make_plan(run, **options)
        run.engine.guard = guard
        return made

    with monkeypatch.context() as patch:
        patch.setattr("edgezo_runtime.app.open_run.make_plan", watched)
        done = invoke(*tune_args(tiny), code=4)
    assert "left to this process by the machine" in done.stderr
    again = json.loads(invoke("tune", "--resume", "-o", "run", "--json").stdout)
    assert again["adapter_sha256"] == expected


# --- ulimit -v ---


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is enforced on Linux")
def test_addresses_of_any_number(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    """From the limit on where the libraries can be imported."""
    expected = undisturbed(invoke, tiny)
    codes: list[int] = []
    for mib in range(importable_mib(), 800, 12):
        done = launch(tune_args(tiny, "--json"), tmp_path, address_space(mib * MIB))
        codes.append(check_ending(done, tiny, invoke, expected))
        subprocess.run(["rm", "-rf", tmp_path / "run"], check=True)
        if codes[-3:] == [0, 0, 0]:
            break
    assert len(codes) >= 8
    assert codes == sorted(codes, reverse=True)
    assert codes[0] == 3


def importable_mib() -> int:
    """Smallest limit seen under which the libraries load; some crash or hang below it."""
    program = "import onnxruntime, tokenizers, safetensors.numpy"
    for mib in range(160, 400, 4):
        command = [sys.executable, "-c", program]
        limit = address_space(mib * MIB)
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, preexec_fn=limit, timeout=10)
            if done.returncode == 0:
                return mib + 4
    pytest.fail("the libraries take more addresses than this test tries")


# --- control groups ---


@pytest.mark.slow
def test_a_budget_above_the_control_group(tiny: Tiny, tmp_path: Path) -> None:
    with control_group(400 * MIB) as group:
        done = launch(tune_args(tiny, "--budget", "500MB"), tmp_path, group.enter)
        assert done.returncode == 2
        assert "control group" in done.stderr
        args = ["plan", tiny.int8, "--budget", "300MB", "--enforce", "--json"]
        plan = launch(args, tmp_path, group.enter)
    memory_limits = {fence["name"]: fence for fence in json.loads(plan.stdout)["memory_limits"]}
    assert memory_limits["control-group"]["active"]
    assert memory_limits["control-group"]["limit_bytes"] == 400 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("mib", [128, 160, 200, 256, 384])
def test_a_budget_just_inside_the_control_group(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, mib: int
) -> None:
    expected = undisturbed(invoke, tiny)
    with control_group(mib * MIB) as group:
        fill_page_cache(group, tmp_path / "large")
        args = tune_args(tiny, "--json", "--budget", str((mib - 1) * MIB))
        done = launch(args, tmp_path, group.enter)
        assert group.kills() == 0
    assert check_ending(done, tiny, invoke, expected) == (0 if mib > 200 else done.returncode)


def fill_page_cache(group: Group, path: Path) -> None:
    """Have the group's limit reached by pages of a file that was read."""
    with path.open("wb") as file:
        for _ in range(group.limit_bytes // MIB + 64):
            file.write(bytes(MIB))
    program = "import sys; [0 for _ in iter(lambda: sys.stdin.buffer.read(1 << 20), b'')]"
    with path.open("rb") as file:
        subprocess.run(
            [sys.executable, "-c", program], stdin=file, preexec_fn=group.enter, check=True
        )


TAKER = """
import sys, time
taken = []
for _ in range(int(sys.argv[1])):
    taken.append(b"x" * (1 << 20))
    time.sleep(0.003)
print("taken", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_another_process_takes_the_control_group(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    expected = undisturbed(invoke, tiny, "--steps", "2000")
    with control_group(512 * MIB) as group:
        args = tune_args(tiny, "--json", "--steps", "2000", "--budget", "300MB")
        tuning = start(*args, cwd=tmp_path, preexec_fn=group.enter)
        wait_for_steps(tmp_path / "run")
        used = read_usage(group)
        count = (group.limit_bytes - used) // MIB - 16
        command = [sys.executable, "-c", TAKER, str(count)]
        taker = subprocess.Popen(command, preexec_fn=group.enter)
        try:
            stdout, stderr = tuning.communicate(timeout=120)
        finally:
            taker.kill()
            taker.wait()
        assert group.kills() == 0
    done = subprocess.CompletedProcess([], tuning.returncode, stdout, stderr)
    assert check_ending(done, tiny, invoke, expected) == 4


def read_usage(group: Group) -> int:
    """Bytes of the group."""
    names = ("memory.usage_in_bytes", "memory.current")
    return next(
        int((group.folder / name).read_text()) for name in names if (group.folder / name).exists()
    )
