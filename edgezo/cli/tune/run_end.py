"""The end of a session: what ended the steps, and the command that goes on."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgezo.cli.settings.flags import with_flags
from edgezo.wording import duration
from edgezo_runtime.errors import BudgetStopError, DivergedError, RewardError
from edgezo_runtime.training.run import Run

Failure = DivergedError | BudgetStopError | RewardError
"""An error that ends a session with its state saved."""

_FAILURES: dict[type[Failure], tuple[str, str]] = {
    DivergedError: ("diverged", "divergence"),
    RewardError: ("reward-failed", "reward"),
    BudgetStopError: ("out-of-memory", "memory"),
}
"""Status of a session and end of its steps, by error."""

_MARGIN = 1.2
"""Time that a command names, in units of the time that the remaining steps are expected to take."""


def describe_end(run: Run, failure: Failure | None, *, interrupted: bool) -> dict[str, Any]:
    """The entries of the result about the end of a session.

    Args:
        run: the run; not closed yet.
        failure: the error that ended the session.
        interrupted: did a signal end it?

    Returns:
        `status` says how the session ended. `ended_by` says what ended the steps: a limit of the
        run, "steps" or "time", also if the session then failed; else the reason of the failure, or
        "interrupt". `steps_planned` is None if only time limits the run, `max_time_s` if only steps
        do. `error` is there after a failure.
    """
    status, cause = ("interrupted", "interrupt") if interrupted else ("done", "")
    if failure is not None:
        status, cause = next(
            found for kind, found in _FAILURES.items() if isinstance(failure, kind)
        )
    told = run.status(begun=True)
    limit = told.ended_by if told.ended_by != "stop" else None
    longest_s = float(run.trajectory.settled.max_time_s)
    return {
        "status": status,
        **({} if failure is None else {"error": with_flags(str(failure))}),
        "ended_by": limit or cause,
        "steps_planned": told.steps_planned,
        "max_time_s": longest_s or None,
    }


def resume_command(output: Path, reward: str | None = None, *more: str) -> str:
    """The command that resumes a run.

    Args:
        output: folder of the run.
        reward: as given to the run, whose configuration does not name it.
        more: further arguments.
    """
    given = [] if reward is None else ["--reward", reward]
    return shlex.join(["edgezo", "tune", "--resume", "-o", str(output), *given, *more])


def early_end(result: Mapping[str, Any], output: Path, reward: str | None = None) -> str | None:
    """A line about a run that its time ended before its steps; None for any other end.

    Args:
        result: of the session.
        output: folder of the run.
        reward: as for `resume_command`.
    """
    steps, planned = result["steps"], result["steps_planned"]
    if result["status"] != "done" or result["ended_by"] != "time" or (steps and not planned):
        return None
    where = f"at step {steps} of {planned}" if steps else "before the first step"
    more = longer_time(result["seconds"], result["max_time_s"], steps, planned)
    return (
        f"stopped after {duration(result['max_time_s'])}, its longest time, {where}; "
        f"to go on: {resume_command(output, reward, '--max-time', more)}"
    )


def longer_time(seconds: float, longest_s: float, steps: int, planned: int | None) -> str:
    """A longest time in which a run is expected to take its steps, as `--max-time` takes it.

    Args:
        seconds: that the steps so far took.
        longest_s: the longest time so far.
        steps: number of steps so far.
        planned: steps of the whole run; None if only time limits it.
    """
    needed = 2 * max(seconds, longest_s)
    if steps and planned:
        needed = max(needed, _MARGIN * seconds * planned / steps)
    for unit, size, most in (("0s", 10, 12), ("m", 60, 120)):
        count = math.ceil(needed / size)
        if count <= most:
            return f"{count}{unit}"
    return f"{math.ceil(needed / 3600)}h"
