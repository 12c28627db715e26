"""A process in which a thread takes the steps of a tuner, and what is done meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import method_config
from tests.runtime.forked_calls import FORK_OF_USER, not_refused
from tests.runtime.tiny_sets import random_set

ROOT = Path(__file__).resolve().parents[2]

What = Literal["own", "background", "fork"]


def run_process(bundle: Bundle, folder: Path, what: What, threads: int) -> None:
    """Run a process, and require that it ends well and says nothing else.

    Args:
        bundle: the model.
        folder: where runs are made.
        what: "own" ends while a thread of its own steps, "background" while the tuner's does,
            "fork" forks while the tuner's does.
        threads: compute threads.
    """
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "runtime", "export"))
    module = "tests.runtime.stepping_process"
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-m",
            module,
            str(bundle.root),
            str(folder),
            what,
            str(threads),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def _main(root: str, folder: Path, what: str, threads: int) -> None:
    bundle = Bundle.open(root)
    examples = random_set("labels", (4, 7, 5, 3), bundle.manifest.tokenizer.pad_id)
    config = method_config("zo-sgd", lr=0.01, eps=0.01, steps=10**6, max_time_s=0, batch_size=2)
    tuner = Tuner.open(bundle, examples, config, folder / "run", threads=threads)
    if what == "own":
        threading.Thread(target=lambda: list(tuner), daemon=True).start()
    else:
        tuner.run_in_background(keep_going=True)
    while tuner.step_number < 3:
        time.sleep(0.001)
    if what == "fork":

        def own() -> object:
            return Tuner.open(bundle, examples, config, folder / "child", threads=threads)

        _fork(tuner, own)
        assert not (folder / "child" / "journal.bin").exists()
        steps = tuner.step_number
        while tuner.step_number < steps + 3:
            time.sleep(0.001)
        tuner.pause(wait=True)
        cached = tuner.run.probes.cache is not None
        assert (folder / "run" / "prefix.cache").exists() == cached
        tuner.close()
    print("end")


def _fork(tuner: Tuner, own: Callable[[], object]) -> None:
    """Have a child call everything, while a thread of this process steps; a child that waits for
    something is killed, and its status says so."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        missing = 1
        try:
            try:
                own()
            except UsageError as error:
                missing = FORK_OF_USER not in str(error)
            missing += len(not_refused(tuner))
            tuner.close()
        finally:
            os._exit(missing)
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
