"""Runs on a disk that fails at one operation after the other, and what becomes of them.

    LD_PRELOAD=LIBRARY python -m tests.crash.full_disk_runs FOLDER EVERY ARGS

Started with the library of `disk_library`. ARGS are those of `edgezo tune`, without -o. Prints a
JSON object: how many operations a run has, how many failures were tried, how the runs ended, and
what was wrong, if anything was.
"""

from __future__ import annotations

import collections
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result

from edgezo.cli import main as command
from tests.crash.disk_library import failing

_LAST = 2**62
FAILURES: dict[str, tuple[int | None, int, bool]] = {
    "full": (_LAST, errno.ENOSPC, False),
    "short": (_LAST, errno.ENOSPC, True),
    "once": (None, errno.EIO, False),
    "read-only": (_LAST, errno.EROFS, False),
}
"""From an operation on, or in that one alone; with which error; are writes done by half first?"""


def tune(args: Sequence[str], folder: Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(command, ["tune", *args, "-o", str(folder / "run"), "--json"])


def problem(failed: Result, again: Result, expected: str) -> str | None:
    """What is wrong with how a run ended, and went on when there was room again."""
    if failed.exception is not None and not isinstance(failed.exception, SystemExit):
        return f"{failed.exception!r}"
    if failed.exit_code and "error: " not in failed.stderr:
        return f"exit code {failed.exit_code} without a word"
    if again.exit_code:
        return f"cannot go on: {again.stderr[-300:]}"
    for result in (failed, again):
        if not result.exit_code and json.loads(result.stdout)["adapter_sha256"] != expected:
            return "another adapter"
    return None


def main() -> None:
    """Try every failure."""
    base, every, args = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    os.environ["COLUMNS"] = "200"
    (base / "whole").mkdir()
    with failing(base, _LAST, -1, 0) as whole:
        expected = json.loads(tune(args, base / "whole").stdout)["adapter_sha256"]
    ends: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    tried = 0
    for number in range(0, whole.operations, every):
        for name, (last, code, half) in FAILURES.items():
            folder = base / f"{name}-{number}"
            folder.mkdir()
            with failing(folder, number, number if last is None else last, code, half=half):
                failed = tune(args, folder)
            found = problem(failed, tune(args, folder), expected)
            tried += 1
            ends[f"{name}: exit {failed.exit_code}"] += 1
            if found:
                wrong.append(f"{name} at operation {number}: {found}; {failed.stderr[-200:]}")
    result = {"operations": whole.operations, "tried": tried, "ends": ends, "wrong": wrong}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
