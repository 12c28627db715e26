"""The first signal asks, the second one insists."""

from __future__ import annotations

import signal

import pytest

from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo_runtime.errors import InterruptedRunError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_stops_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    asked: list[str] = []
    with StopSignals() as signals:
        signals.check()
        signals.on_request(lambda: asked.append("stop"))
        signal.raise_signal(number)
        assert asked == ["stop"]
        with pytest.raises(InterruptedRunError):
            signals.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_signal_before_there_is_an_action_is_not_lost() -> None:
    asked: list[str] = []
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signals.on_request(lambda: asked.append("stop"))
    assert asked == ["stop"]
