from __future__ import annotations

import pytest

from edgezo.talk.voice import Voice, by_name, fixed, parse_named
from edgezo_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run", ("run", "run")),
        ("runs/a/", ("a", "runs/a/")),
        ("runs/a/adapter.safetensors", ("a", "runs/a/adapter.safetensors")),
        ("mine.safetensors", ("mine", "mine.safetensors")),
        ("lamp=runs/a", ("lamp", "runs/a")),
        ("lamp=runs/a=b", ("lamp", "runs/a=b")),
        ("C:\\runs\\a", ("a", "C:\\runs\\a")),
    ],
)
def test_an_adapter_has_a_name(text: str, expected: tuple[str, str]) -> None:
    assert parse_named(text) == expected


@pytest.mark.parametrize("text", ["", "=run", "a b=run", "a/b=run", "a=", "\x1b=run", "/", "."])
def test_odd_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME=RUN"):
        parse_named(text)


def test_names_are_different() -> None:
    voices = [Voice("a", fixed({})), Voice("a", fixed({}))]
    with pytest.raises(UsageError, match="two models are called 'a'"):
        by_name(voices)
