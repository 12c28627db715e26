"""Skips what needs onnxruntime-training where another onnxruntime is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_FOUND = importlib.util.find_spec("onnxruntime")
_PLACES = [] if _FOUND is None else list(_FOUND.submodule_search_locations or [])
_INSTALLED = any((Path(place) / "training" / "api").is_dir() for place in _PLACES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="needs onnxruntime-training: make test-training")
    for item in items:
        if not _INSTALLED and item.get_closest_marker("training"):
            item.add_marker(skip)
