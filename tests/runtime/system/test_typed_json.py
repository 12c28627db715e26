"""The strict JSON decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from edgezo_runtime.system.typed_json import JsonShapeError, decode, encode, parse_object


@dataclass(frozen=True, slots=True)
class Inner:
    size: int
    parts: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    kind: Literal["a", "b"]
    ratio: float
    on: bool
    note: str | None
    inner: tuple[Inner, ...]
    table: dict[str, Inner]
    free: dict[str, object]


GOOD = {
    "name": "x",
    "kind": "a",
    "ratio": 2,
    "on": False,
    "note": None,
    "inner": [{"size": 1, "parts": [1, "S"]}, {"size": 2}],
    "table": {"k": {"size": 3, "parts": []}},
    "free": {"any": [1, {"x": None}]},
}


def test_round_trip():
    value = decode(Outer, GOOD)
    assert value.inner == (Inner(1, (1, "S")), Inner(2))
    assert value.table == {"k": Inner(3)}
    assert type(value.ratio) is float
    assert decode(Outer, encode(value)) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "name: expected str, found int 1"),
        ({"name": None}, "name: expected str, found null"),
        ({"kind": "c"}, "kind: expected"),
        ({"kind": 1}, "kind: expected"),
        ({"ratio": True}, "ratio: expected float, found bool"),
        ({"ratio": "1"}, "ratio: expected float, found str '1'"),
        ({"on": 0}, "on: expected bool, found int"),
        ({"note": 3}, "note: expected str, found int 3"),
        ({"inner": {}}, "inner: expected an array, found an object"),
        ({"inner": [{"size": True}]}, r"inner\[0\].size: expected int, found bool"),
        ({"inner": [{"size": 1.0}]}, r"inner\[0\].size: expected int, found float 1.0"),
        ({"inner": [{"size": 1, "parts": [1.5]}]}, r"parts\[0\]: expected int or str"),
        ({"inner": [{}]}, r"inner\[0\].size: missing"),
        ({"inner": ["x"]}, r"inner\[0\]: expected an object, found str 'x'"),
        ({"table": {"k": {"size": 1, "odd": 2}}}, "table.k.odd: unknown key"),
        ({"table": []}, "table: expected an object"),
    ],
)
def test_wrong_values_are_named(change, message):
    with pytest.raises(JsonShapeError, match=message):
        decode(Outer, GOOD | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "expected an object at the top, found an array"),
        ('{"a": 1, "a": 2}', "a: repeated key"),
        ('{"a": NaN}', "not JSON: NaN"),
        ('{"a": -Infinity}', "not JSON: -Infinity"),
        ('{"a": ' + "[" * 200_000, "nested too deeply|not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_text_that_is_no_object(text, message):
    with pytest.raises(JsonShapeError, match=message):
        parse_object(text)
