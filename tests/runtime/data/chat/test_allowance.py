"""The allowance of a rendering: steps, characters, time, and bounds on the cost of values."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

from edgezo_runtime.data.chat import allowance as module
from edgezo_runtime.data.chat.allowance import (
    MOST_CHARACTERS,
    MOST_SECONDS,
    MOST_STEPS,
    OBJECT,
    Allowance,
    size,
)

VALUES: list[Any] = [
    "word",
    "it's \\ \x00 ünïcode \u2028",
    0,
    -(10**40),
    1.5,
    None,
    True,
    [],
    ["a", ["b", ("c", {"d": [1, 2, "é"]})]],
    {"role": "user", "content": "x" * 100, "n": [None, False]},
    {1, 2, 3},
    [["x"] * 20] * 20,
]


def test_steps_end() -> None:
    own = Allowance()
    for _ in range(MOST_STEPS):
        own.step()
    with pytest.raises(SecurityError, match="more than 300000 steps"):
        own.step()
    own.begin(0)
    own.step()


def test_characters_end_and_grow_with_what_is_given() -> None:
    own = Allowance()
    own.make(MOST_CHARACTERS)
    with pytest.raises(SecurityError, match="makes too much text"):
        own.make(0.5)  # rounded up
    own.begin(1000)
    own.make(MOST_CHARACTERS + 32_000)
    with pytest.raises(SecurityError, match="makes too much text"):
        own.make(1)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands, so that a busy machine runs out of nothing but what is tested."""
    seconds = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def test_time_ends(now: list[float]) -> None:
    own = Allowance()
    now[0] += MOST_SECONDS
    own.step()
    now[0] += 0.1
    with pytest.raises(SecurityError, match="more than 10 seconds"):
        own.step()
    own.begin(0)
    own.step()


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_bounds_are_never_too_low(value: Any) -> None:
    own = Allowance()
    assert own.shown(value) >= len(repr(value))
    assert own.text(value) >= len(str(value))
    if not isinstance(value, set):
        for indent in (0, 4, 32):
            made = json.dumps(value, indent=indent, ensure_ascii=False)
            assert own.shown([value], indent) >= len(made)


def test_a_list_that_is_held_twice_counts_twice() -> None:
    own, inner = Allowance(), ["x" * 100] * 10
    assert own.shown([inner, inner]) > 1.9 * own.shown([inner])
    assert own.held([inner, inner]) > 1.8 * own.held([inner])


def test_bounds_of_what_never_ends_stop_with_the_allowance() -> None:
    left = 10_000
    own = Allowance()
    own.make(MOST_CHARACTERS - left)
    ring: list[Any] = [1]
    ring.append(ring)
    doubled: Any = ["x"]
    for _ in range(60):
        doubled = [doubled, doubled]
    for value in (ring, doubled):
        assert left < own.shown(value) < 2 * left
        assert left < own.held(value) < 2 * left


def test_comparing_text_and_numbers_is_cheap() -> None:
    own = Allowance()
    assert own.held("x" * 6400) == 100
    assert own.held(10**50) == own.held(None) == 0
    assert own.held(["a"] * 10) >= 10


def test_namespaces_are_looked_into() -> None:
    own = Allowance()
    assert own.shown(Namespace(a="x" * 1000)) > 1000


def test_iterators_become_lists_at_a_cost() -> None:
    own = Allowance()
    assert own.taken(iter([1, 2])) == [1, 2]
    assert own.taken(range(3)) == [0, 1, 2]
    assert own.taken({"a": 1}.items()) == [("a", 1)]
    kept = [1]
    assert own.taken(kept) is kept
    assert own.taken("text") == "text"
    with pytest.raises(SecurityError, match="too much text"):
        own.taken(range(MOST_CHARACTERS // OBJECT + 1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("abc", 3), ([1, 2], 2), ({"a": 1}, 1), (range(7), 7), (None, 1), (5, 1), ({}.keys(), 0)],
)
def test_size(value: object, expected: int) -> None:
    assert size(value) == expected
