"""Which memory limits an engine has."""

from __future__ import annotations

import pytest

from edgezo_runtime.budget import memory_limits as module
from edgezo_runtime.budget.memory_limits import limited_engine, memory_limits
from edgezo_runtime.engine.engine import Engine

NAMES = [
    "plan",
    "arena",
    "watch",
    "available",
    "control-group",
    "address-space",
    "unified-memory",
]


@pytest.fixture
def bundle(exported):
    return exported("llama").bundle("int8").bundle


def by_name(engine):
    return {limit.name: limit for limit in memory_limits(engine)}


def test_with_a_budget(bundle, monkeypatch) -> None:
    engine = limited_engine(bundle, 10**9, None)
    # the first engine of the process set this, maybe that one
    monkeypatch.setattr(module.ENVIRONMENT, "arena_bytes", 5 * 10**8)
    found = by_name(engine)
    assert list(found) == NAMES
    assert found["watch"].active
    assert found["watch"].limit_bytes == 980_000_000
    assert found["arena"].limit_bytes == 5 * 10**8
    assert "0 of 2 blocks streamed" in found["plan"].detail


def test_without_a_budget(bundle, monkeypatch) -> None:
    monkeypatch.setattr(module.ENVIRONMENT, "arena_bytes", None)
    found = by_name(Engine(bundle))
    assert not found["plan"].active
    assert not found["arena"].active
    assert not found["watch"].active
    assert found["available"].active


def test_limits_from_outside(bundle, monkeypatch) -> None:
    monkeypatch.setattr(module, "limit_bytes", lambda: 2 * 10**9)
    monkeypatch.setattr(module, "address_space_limit", lambda: 10**9)
    monkeypatch.setattr(module, "is_unified", lambda: True)
    assert not by_name(Engine(bundle))["unified-memory"].active
    monkeypatch.setattr(module, "tells_device", lambda: True)
    found = by_name(Engine(bundle))
    assert found["control-group"].limit_bytes == 2 * 10**9
    assert found["address-space"].limit_bytes == 10**9
    assert found["unified-memory"].active
