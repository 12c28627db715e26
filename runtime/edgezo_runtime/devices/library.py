"""The module onnxruntime: imported where it is needed, quietly, and in a release that will do."""

from __future__ import annotations

import os
import re
from typing import Any

from edgezo_runtime.errors import MissingExtraError
from edgezo_runtime.system.memory import is_unmapped

OLDEST = (1, 19)
"""First release that reads the graphs of bundles."""

FUSED = (1, 20)
"""First release whose attention operator takes an empty past; 1.19 makes NaN of it."""

PLUGINS = (1, 24)
"""First release that takes the WebGPU provider as a plugin."""


def keep_quiet() -> None:
    """Switch the telemetry of onnxruntime off; to be called before its first import.

    From 1.29 on its official builds for Linux write what they run to a database in the user's cache
    and send it to their makers, unless the environment says otherwise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        MissingExtraError: no flavour of onnxruntime is installed.
        MemoryError: there is no room for it.
    """
    keep_quiet()
    try:
        import onnxruntime as ort
    except ImportError as error:
        if is_unmapped(error):
            raise MemoryError(str(error)) from error
        raise MissingExtraError(
            "onnxruntime is not installed; run pip install 'edgezo[cpu]'"
        ) from error
    if hasattr(ort, "__version__") and release(ort.__version__) < OLDEST:
        raise MissingExtraError(
            f"onnxruntime {ort.__version__} cannot run the graphs of bundles; "
            f"run pip install 'onnxruntime>={FUSED[0]}.{FUSED[1]}'"
        )
    if not hasattr(ort, "InferenceSession"):
        raise MissingExtraError(
            "the installed onnxruntime is broken, as when two flavours overwrote each other; "
            "uninstall all of them, then run pip install 'edgezo[cpu]'"
        )
    return ort


def runs_fused_attention() -> bool:
    """Can the installed onnxruntime run blocks as they are, and not in their plain form only?"""
    return release(str(import_onnxruntime().__version__)) >= FUSED


def release(version: str) -> tuple[int, int]:
    """Major and minor number; suffixes such as dev or rc do not matter."""
    parts = re.findall(r"\d+", version)[:2]
    return int(parts[0]), int(parts[1])
