"""What an app is told: a frozen dataclass per kind."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

import edgezo
from edgezo_runtime.app import events
from edgezo_runtime.app.events import EndEvent, Event, PauseEvent, ResumeEvent

KINDS = get_args(Event)


def test_an_event_is_any_of_the_kinds() -> None:
    own = {
        value
        for value in vars(events).values()
        if isinstance(value, type) and value.__module__ == events.__name__
    }
    assert set(KINDS) == own
    assert len(KINDS) == len(own)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_public_and_begins_with_the_steps_done(kind: type) -> None:
    assert getattr(edgezo, kind.__name__) is kind
    first, *_ = dataclasses.fields(kind)
    assert (first.name, first.type) == ("step", "int")
    assert (kind.__doc__ or "").strip()


def test_events_are_equal_by_what_they_say_and_do_not_change() -> None:
    assert PauseEvent(1, "lunch") == PauseEvent(1, "lunch") != PauseEvent(1, "dinner")
    assert ResumeEvent(1) != EndEvent(1, "done")
    assert EndEvent(1, "done").error == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        ResumeEvent(1).step = 2  # type: ignore[misc]
