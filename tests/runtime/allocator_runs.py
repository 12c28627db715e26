"""Runs in which one allocation of the process fails, until none is left to fail.

python -m tests.runtime.allocator_runs BUNDLE FOLDER KIND once|lasting SMALLEST

Started with the library of `failing_allocator`. One allocation in four is tried, or one in
EDGEZO_EVERY. Prints a JSON object: how many runs ended how.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from itertools import count
from pathlib import Path

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.system import files
from tests.crash.sampling import every
from tests.runtime.failing_allocator import refusing
from tests.runtime.refused_runs import CONFIGS, Run


def main(bundle: str, folder: str, kind: str, how: str, smallest: str) -> None:
    """Run until a run asks for no more than was tried."""
    files.sync_descriptor = lambda descriptor: None
    run = Run(Bundle.open(bundle), CONFIGS[kind], Path(folder))
    expected = run.undisturbed()
    endings: Counter[str] = Counter()
    for number in count(0, every(12)):
        with run.open(f"run{number}") as tuner:
            tuner.run.engine.model.shrink_arena()
        shutil.rmtree(run.folder / f"run{number}")
        last = number if how == "once" else None
        print(number, file=sys.stderr, flush=True)
        ending, found = run.ending(f"run{number}", refusing(number, last, int(smallest)), expected)
        if found.seen <= number:
            break
        endings[ending] += 1
        shutil.rmtree(run.folder / f"run{number}")
    print(json.dumps(endings))


if __name__ == "__main__":
    main(*sys.argv[1:])
