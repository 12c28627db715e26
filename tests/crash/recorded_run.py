"""A short run whose operations on its folder are written down.

    LD_PRELOAD=LIBRARY python -m tests.crash.recorded_run BUNDLE METHOD FOLDER LOG

Started with the library of `disk_library`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgezo_runtime.bundle.bundle import Bundle
from tests.crash.disk_library import recording
from tests.crash.short_runs import finish


def main() -> None:
    """Run."""
    bundle, method, folder, log = sys.argv[1:]
    opened = Bundle.open(Path(bundle))
    with recording(Path(folder), Path(log)):
        finish(opened, method, Path(folder))


if __name__ == "__main__":
    main()
