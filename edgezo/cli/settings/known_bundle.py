"""The bundle of a command: named, that of a run, or the default one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgezo.cli.terminal.output import note
from edgezo.cli.tune.default_bundle import default_bundle
from edgezo_runtime.bundle.bundle import MANIFEST_FILE
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.run_folder import RunFolder


def known_bundle(given: str | None, *adapters: str | None) -> Path:
    """The bundle that is named, that of the first adapter's run, or the default one.

    Args:
        given: its path, if it is named.
        adapters: run folders, or adapter files, which may lie in one.
    Raises:
        UsageError: the bundle of the run is not where it was.
        EdgezoError: there is no default bundle, and it could not be exported.
    """
    if given is not None:
        return Path(given)
    for name in adapters:
        if name is None:
            continue
        path = Path(name)
        folder = path if path.is_dir() else path.parent
        known: Any = RunFolder(folder).settings().get("bundle")
        if isinstance(known, str):
            if not (Path(known) / MANIFEST_FILE).is_file():
                raise UsageError(
                    f"{name}: its bundle is not at {known} any more; name it: edgezo ... BUNDLE"
                )
            note(f"bundle of the run: {known}")
            return Path(known)
    return default_bundle()
