"""The governor that the app itself tells."""

from __future__ import annotations

from edgezo_runtime.governors.foreground import Foreground


def test_the_app_says_when_it_is_in_front() -> None:
    active = False
    governor = Foreground(lambda: active)
    assert governor() is None
    with governor:
        with governor:
            assert governor() == "the app is in the foreground"
        assert governor() is not None
    assert governor() is None
    active = True
    assert governor() is not None


def test_leaving_more_often_than_entering_does_no_harm() -> None:
    governor = Foreground()
    governor.leave()
    governor.enter()
    assert governor() == "the app is in the foreground"
    governor.leave()
    assert governor() is None
