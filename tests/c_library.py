"""Small C libraries that stand before the real one, for tests in which it fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def build(folder: Path, source: str) -> Path:
    """Compile a library; skips the test where that is not possible.

    Args:
        folder: where it is made.
        source: in C, for Linux and glibc.
    """
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux, glibc and a C compiler")
    text, library = folder / "library.c", folder / "library.so"
    text.write_text(source)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(text), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the C library is no glibc: {done.stderr}")
    return library
