"""The bundle of the default model: exported once, then taken from the user's cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import edgezo_export
from edgezo._version import __version__
from edgezo.cli.export import ExportSettings, require_extra
from edgezo.cli.terminal.output import note
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import BundleError, EdgezoError, InterruptedRunError

NAME = "SmolLM2-135M-Instruct"


def default_bundle(rank: int | None = None) -> Path:
    """The bundle of the default model, SmolLM2-135M-Instruct, from the user's cache.

    The first call exports it, which needs the extra `export` and takes about half a minute. That
    happens in a process of its own: torch would take memory from the budget of a run.

    Args:
        rank: of its adapters; None for the default.
    Returns:
        Its folder, which is below $XDG_CACHE_HOME or ~/.cache.
    Raises:
        MissingExtraError: the extra `export` is not installed.
        EdgezoError: the export failed; it has printed the reason.
    """
    path = cache_folder() / "bundles" / default_name(rank)
    if _is_usable(path):
        return path
    require_extra()
    note(f"exporting the default model {NAME} to the cache, {path}")
    command = [sys.executable, "-m", "edgezo", "export", "-o", str(path), "--force"]
    command += [] if rank is None else ["--rank", str(rank)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if code == InterruptedRunError.exit_code or code < 0:
        raise InterruptedRunError("interrupted during the export of the default model")
    if code:
        raise EdgezoError(f"the export of the default model failed with exit code {code}")
    return path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/edgezo, or ~/.cache/edgezo where it is not set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "edgezo"


def default_name(rank: int | None = None) -> str:
    """A name of its own for each version, settings and code of the exporter."""
    settings = dataclasses.asdict(ExportSettings(rank=rank))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in sorted(Path(edgezo_export.__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return f"{NAME}-{settings['quant']}-{__version__}-{digest.hexdigest()[:8]}"


def _is_usable(path: Path) -> bool:
    """Is there a bundle that this version can read? If not, the export replaces it."""
    if not path.exists():
        return False
    try:
        Bundle.open(path)
    except BundleError as error:
        note(f"the cached bundle cannot be used ({error})")
        return False
    return True
