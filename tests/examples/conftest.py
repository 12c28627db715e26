from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles.tiny import speller
from tests.conftest import copied


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two blocks that spells, exported."""
    return copied(tmp_path_factory.mktemp("speller") / "bundle", speller)
