"""`edgezo tune` in a child process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.children import environment
from tests.benchmarks.tasks import TaskRows


def tune(
    rows: TaskRows,
    run: Path,
    *,
    seed: int,
    budget: str = "1GB",
    max_time: str = "10m",
    bundle: Path | None = None,
    extra: Sequence[str] = (),
    log: Path | None = None,
) -> dict[str, Any]:
    """Run the command and wait for it.

    Args:
        rows: what to tune and evaluate on.
        run: folder of the run.
        seed: of noise and data order.
        budget: as for the command.
        max_time: as for the command.
        bundle: None for the embedded default.
        extra: further options.
        log: where progress and warnings go; None leaves them on stderr.
    Returns:
        What the command prints with --json.
    Raises:
        RuntimeError: the command failed; with its last line, where there is a log.
    """
    command = ["tune", *([str(bundle)] if bundle else []), *rows.options()]
    command += ["--budget", budget, "--max-time", max_time, "--seed", str(seed)]
    return edgezo([*command, "-o", str(run), *extra], log)


def edgezo(command: Sequence[str], log: Path | None = None) -> dict[str, Any]:
    """Run a command with --json.

    Raises:
        RuntimeError: it failed; the message has its last line, if there is a log.
    """
    full = [sys.executable, "-m", "edgezo", *command, "--json"]
    if log is None:
        done = subprocess.run(full, env=environment(), stdout=subprocess.PIPE, text=True)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as lines:
            done = subprocess.run(
                full, env=environment(), stdout=subprocess.PIPE, stderr=lines, text=True
            )
    if done.returncode:
        said = log.read_text(encoding="utf-8").strip().splitlines()[-1:] if log else []
        raise RuntimeError(
            f"edgezo {command[0]} ended with exit code {done.returncode}: {''.join(said)}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
