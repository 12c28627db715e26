from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.tiny_bundle import write_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle on disk."""
    return write_bundle(tmp_path / "bundle")
