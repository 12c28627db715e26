"""Sessions of onnxruntime, and the processes that may open them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.sessions import ENVIRONMENT, SharedEnvironment
from edgezo_runtime.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]
HAS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

SCRIPT = """
import os, sys
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import UsageError

bundle, used, depth = Bundle.open(sys.argv[1]), sys.argv[2], int(sys.argv[3])
file = bundle.manifest.graphs.prologue.file
if used == "prepared":
    ENVIRONMENT.prepare(2, None)
elif used == "opened":
    ENVIRONMENT.open(bundle, file)

def refused(work):
    try:
        work()
    except UsageError as error:
        assert "forked after onnxruntime had started its threads" in str(error)
        assert "(spawn)" in str(error)
        return True
    return False

children = []
for _ in range(depth):
    children.append(os.fork())
    if children[-1]:
        break
else:
    told = [
        refused(lambda: ENVIRONMENT.prepare(1, None)),
        refused(lambda: ENVIRONMENT.open(bundle, file)),
        refused(lambda: ENVIRONMENT.workers),
        refused(lambda: Engine(bundle, threads=1)),
    ]
    os._exit(sum(told))
status = os.waitstatus_to_exitcode(os.waitpid(children[-1], 0)[1])
if len(children) > 1:
    os._exit(status)
print(status, flush=True)
if used:
    assert ENVIRONMENT.open(bundle, file).get_inputs()
"""


def refusals_in_a_fork(bundle: Bundle, used: str, depth: int) -> int:
    """How much a fork may not do, in a process that has `used` onnxruntime."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(bundle.root), used, str(depth)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout)


@HAS_FORK
@pytest.mark.parametrize("used", ["prepared", "opened"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_fork_cannot_use_onnxruntime(bundle: Bundle, used: str, depth: int) -> None:
    """Pins a session constructor that blocked for ever in a forked process."""
    assert refusals_in_a_fork(bundle, used, depth) == 4


@HAS_FORK
def test_a_fork_before_its_first_use_can(bundle: Bundle) -> None:
    assert refusals_in_a_fork(bundle, "", 1) == 0


def test_the_process_of_the_first_use_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SharedEnvironment()
    environment.require_process()
    environment.prepare(1, None)
    try:
        environment.require_process()
        assert environment.workers.submit(int).result(30) == 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(UsageError, match=r"forked after onnxruntime .* \(spawn\)"):
                environment.require_process()
    finally:
        environment.release()


def test_a_session_takes_what_its_manifest_says(bundle: Bundle) -> None:
    graph = bundle.manifest.graphs.prologue
    session = ENVIRONMENT.open(bundle, graph.file)
    assert {end.name for end in session.get_inputs()} == {tensor.name for tensor in graph.inputs}
