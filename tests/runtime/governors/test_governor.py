"""What counts as a governor."""

from __future__ import annotations

from edgezo_runtime.governors import make_governors
from edgezo_runtime.governors.foreground import Foreground
from edgezo_runtime.governors.gate import Gate
from edgezo_runtime.governors.governor import Governor


def test_functions_and_objects_are_governors() -> None:
    def hot() -> str | None:
        return "hot"

    governors: list[Governor] = [Foreground(), hot]
    assert make_governors(governors) == (tuple(governors), ())
    gate = Gate()
    gate.governors = tuple(governors)
    assert gate.reason() == "hot"
    gate.governors = (governors[0],)
    assert gate.reason() is None
