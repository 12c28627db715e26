"""Functions called in a process of their own, with the peak memory the kernel counted for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_CODE = """
import json, sys
from importlib import import_module
module, function, arguments = sys.argv[1:]
result = getattr(import_module(module), function)(**json.loads(arguments))
from edgezo_runtime.system.memory import peak_rss_bytes
print(json.dumps([result, peak_rss_bytes()]))
"""


@dataclass(frozen=True, slots=True)
class Child:
    """Result and resources of a finished child.

    Attributes:
        result: what the function returned.
        peak_mb: largest resident memory (VmHWM), file pages included, in 10^6 bytes.
        wall_s: seconds from start to exit, the interpreter's own included.
    """

    result: dict[str, Any]
    peak_mb: float
    wall_s: float


def call(function: Callable[..., dict[str, Any]], **arguments: object) -> Child:
    """Call a function of a benchmark in a fresh interpreter and wait for it.

    Args:
        function: defined at the top of a module; returns a JSON value.
        arguments: JSON values.
    Raises:
        RuntimeError: the child failed; the message has its stderr.
    """
    module = function.__module__
    if module == "__main__":  # started with python -m
        module = sys.modules[module].__spec__.name  # type: ignore[union-attr]
    command = [sys.executable, "-c", _CODE, module, function.__name__, json.dumps(arguments)]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{function.__name__} failed ({done.returncode}):\n{done.stderr}")
    result, peak = json.loads(done.stdout.splitlines()[-1])
    return Child(result, peak / 1e6, wall)


def environment() -> dict[str, str]:
    """This process's variables, with the source tree on the path and the libraries quiet."""
    paths = [ROOT, ROOT / "export", ROOT / "runtime", *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
