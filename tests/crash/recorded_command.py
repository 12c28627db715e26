"""`edgezo tune` in this process, its operations on a folder written down.

    LD_PRELOAD=LIBRARY python -m tests.crash.recorded_command FOLDER LOG ARGS

Started with the library of `disk_library`. ARGS are those of the command, without -o. Prints its
result.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.disk_library import recording
from tests.crash.full_disk_runs import tune


def main() -> None:
    """Run."""
    folder, log, *args = sys.argv[1:]
    with recording(Path(folder), Path(log)):
        done = tune(args, Path(folder))
    print(done.stdout)
    sys.exit(done.exit_code)


if __name__ == "__main__":
    main()
