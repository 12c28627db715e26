"""A run whose arena has a hard limit.

python -m tests.runtime.arena_run BUNDLE FOLDER KIND BYTES

Prints how it ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import BudgetStopError, DoesNotFitError
from tests.runtime.refused_runs import CONFIGS, Run, digest


def main(bundle: str, folder: str, kind: str, size: str) -> None:
    """Run once."""
    ENVIRONMENT.prepare(2, int(size))
    try:
        with Run(Bundle.open(bundle), CONFIGS[kind], Path(folder)).open("run") as tuner:
            for _ in tuner:
                pass
            print(digest(tuner))
    except (BudgetStopError, DoesNotFitError) as error:
        print(type(error).__name__)


if __name__ == "__main__":
    main(*sys.argv[1:])
