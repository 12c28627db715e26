"""Strict conversion of JSON to dataclasses and back.

Unknown keys are refused, no type is converted, and every error names the place.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from edgezo_runtime.errors import printable

T = TypeVar("T")

LONGEST_TEXT = 8 << 20
"""Largest header or manifest; a manifest of 200 blocks has 2.4 MB."""

MAX_VALUES = 1 << 19
"""Limit of the values in one text, five times the number in that manifest.

An empty object has two characters, and takes a hundred bytes when it is read.
"""

_MAX_DEPTH = 64
_MAX_MESSAGE = 400
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(r"[][{}]")


class JsonShapeError(ValueError):
    """JSON text that does not describe the object asked for; the message starts with the place.

    The message contains keys of the text, so it is made printable and short.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, _MAX_MESSAGE))


def parse_object(text: str, max_values: int | None = MAX_VALUES) -> dict[str, Any]:
    """Parse JSON text whose top level is an object.

    Args:
        text: JSON. NaN, Infinity, numbers beyond float64, repeated keys and halves of surrogate
            pairs are refused.
        max_values: limit of its values; None for no limit.
    Returns:
        The object as a dict.
    Raises:
        JsonShapeError: not JSON, nested too deeply, of too many values, or not an object.
    Memory:
        A few hundred bytes per value.
    """
    value = parse_json(text, max_values)
    if not isinstance(value, dict):
        raise JsonShapeError(f"expected an object at the top, found {_kind(value)}")
    return value


def parse_json(text: str, max_values: int | None = MAX_VALUES) -> Any:
    """Parse JSON text as `parse_object` does, with any value at the top level.

    Raises:
        JsonShapeError: not JSON, nested too deeply, or of too many values.
    """
    if max_values is not None and count_values(text) > max_values:
        raise JsonShapeError(f"more than {max_values} values")
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_constant=_no_constant,
            parse_float=finite_number,
        )
    except RecursionError:
        raise JsonShapeError("nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise JsonShapeError(f"not JSON: {error.msg} at {place}") from error
    except JsonShapeError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise JsonShapeError(f"not JSON that can be read: {error}") from error
    if _HALF_PAIR.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise JsonShapeError("half of a surrogate pair in a string") from None
    if _depth(text) > _MAX_DEPTH:
        raise JsonShapeError("nested too deeply")
    return value


def decode(kind: type[T], value: object, where: str = "") -> T:
    """Build a value of `kind` from parsed JSON, strictly.

    Supported kinds: str, int, float, bool, object, Literal, X | Y, tuple[X, ...],
    dict[str, X] and dataclasses of these. A dataclass field with a default may be absent.

    Args:
        kind: the type to build.
        value: result of `json.loads`.
        where: path of the value, for the messages.
    Returns:
        A value of `kind`; JSON arrays become tuples.
    Raises:
        JsonShapeError: a wrong type, a missing or an unknown key.
    """
    return typing.cast(T, _decode(kind, value, where))


def encode(value: object) -> Any:
    """Turn dataclasses into plain dicts and tuples into lists, ready for `json.dumps`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return value


def _decode(kind: Any, value: object, where: str) -> object:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(where, "an array", value)
        item = typing.get_args(kind)[0]
        return tuple(_decode(item, entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if origin is dict:
        item = typing.get_args(kind)[1]
        return {key: _decode(item, entry, _join(where, key)) for key, entry in _pairs(value, where)}
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise _mismatch(where, " or ".join(json.dumps(choice) for choice in choices), value)
        return value
    if origin in (typing.Union, types.UnionType):
        return _decode_union(typing.get_args(kind), value, where)
    return _decode_scalar(kind, value, where)


def _decode_dataclass(kind: Any, value: object, where: str) -> object:
    pairs = dict(_pairs(value, where))
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(pairs.keys() - fields.keys())
    if unknown:
        raise JsonShapeError(f"{_join(where, unknown[0])[:200]}: unknown key")
    arguments = {}
    for name, field in fields.items():
        if name in pairs:
            arguments[name] = _decode(hints[name], pairs[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise JsonShapeError(f"{_join(where, name)}: missing")
    return kind(**arguments)


def _decode_union(members: tuple[Any, ...], value: object, where: str) -> object:
    if value is None and type(None) in members:
        return None
    failures = []
    for member in members:
        if member is type(None):
            continue
        try:
            return _decode(member, value, where)
        except JsonShapeError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    names = " or ".join(getattr(member, "__name__", str(member)) for member in members)
    raise _mismatch(where, names, value)


def _decode_scalar(kind: Any, value: object, where: str) -> object:
    if kind in (object, Any):
        return value
    if kind is float and type(value) in (int, float):
        try:
            return float(typing.cast(float, value))
        except OverflowError:
            raise _mismatch(where, "float", value) from None
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise _mismatch(where, getattr(kind, "__name__", str(kind)), value)


def _pairs(value: object, where: str) -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        raise _mismatch(where, "an object", value)
    return list(value.items())


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of key-value pairs; for `json.loads`.

    Raises:
        JsonShapeError: a key occurs twice.
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonShapeError(f"{key[:80]}: repeated key")
            seen.add(key)
    return result


def _depth(text: str) -> int:
    """Largest number of brackets that are open at once in JSON text."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def count_values(text: str) -> int:
    """Upper bound of the number of values in JSON text, found without parsing it."""
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        text = _STRING.sub("", text)
    return sum(map(text.count, ",[{")) + 1


def finite_number(text: str) -> float:
    """Parse a number with a fraction or an exponent; for `json.loads`.

    Raises:
        JsonShapeError: the number is beyond the range of float64.
    """
    value = float(text)
    if not math.isfinite(value):
        raise JsonShapeError(f"{text[:40]}: the number is beyond the range of float64")
    return value


def _no_constant(text: str) -> float:
    raise JsonShapeError(f"not JSON: {text}")


def _mismatch(where: str, expected: str, value: object) -> JsonShapeError:
    return JsonShapeError(f"{where or 'top level'}: expected {expected}, found {_kind(value)}")


def _kind(value: object) -> str:
    if isinstance(value, (str, int, float)):
        return f"{type(value).__name__} {value!r:.60}"
    return {"NoneType": "null", "list": "an array", "dict": "an object"}.get(
        type(value).__name__, type(value).__name__
    )


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
