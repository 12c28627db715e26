from __future__ import annotations

import pytest

from edgezo_runtime.governors.sensor import Sensor


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensors are read whenever they are asked."""
    monkeypatch.setattr("edgezo_runtime.governors.sensor.EVERY_S", 0)
    monkeypatch.setattr(Sensor.__init__, "__defaults__", (0.0,))
