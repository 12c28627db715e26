"""Strict JSON to dataclasses and back: no unknown keys, no coercion, the place in every error."""

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
"""Bytes that headers and manifests may have; a manifest of 200 blocks has 2.4 MB."""

MOST_VALUES = 1 << 19
"""Values in one text, five times those of that manifest: an empty object of two characters takes a
hundred bytes when it is read."""

_DEEPEST = 64
_LONGEST_MESSAGE = 400
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(r"[][{}]")


class JsonShapeError(ValueError):
    """JSON text that does not describe the object asked for; the message starts with the place.

    Keys of the text are in the message: it prints, and has an end.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, _LONGEST_MESSAGE))


def parse_object(text: str, most_values: int | None = MOST_VALUES) -> dict[str, Any]:
    """Parse JSON text whose top level is an object.

    Args:
        text: JSON; NaN, Infinity, numbers as large as that, repeated keys and halves of surrogate
            pairs are refused.
        most_values: in it; None for any number.
    Returns:
        The object as a dict.
    Raises:
        JsonShapeError: not JSON, nested too deeply, of too many values, or not an object.
    Memory:
        A few hundred bytes a value.
    """
    value = parse_json(text, most_values)
    if not isinstance(value, dict):
        raise JsonShapeError(f"expected an object at the top, found {_kind(value)}")
    return value


def parse_json(text: str, most_values: int | None = MOST_VALUES) -> Any:
    """Parse JSON text, as `parse_object` does, whatever is at its top.

    Raises:
        JsonShapeError: not JSON, nested too deeply, or of too many values.
    """
    if most_values is not None and count_values(text) > most_values:
        raise JsonShapeError(f"more than {most_values} values")
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
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise JsonShapeError("half of a surrogate pair in a string") from None
    if _depth(text) > _DEEPEST:
        raise JsonShapeError("nested too deeply")
    return value


def decode(kind: type[T], value: object, where: str = "") -> T:
    """Build a value of `kind` from parsed JSON, strictly.

    Understood kinds: str, int, float, bool, object, Literal, X | Y, tuple[X, ...],
    dict[str, X] and dataclasses of these. A dataclass field with a default may be absent.

    Args:
        kind: the type to build.
        value: what `json.loads` gave.
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
    """An object; for `json.loads`.

    Raises:
        JsonShapeError: a key is in it twice.
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
    """Brackets that are open at once, of text that is JSON."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def count_values(text: str) -> int:
    """No fewer than the values in JSON text, told before any is made."""
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        text = _STRING.sub("", text)
    return sum(map(text.count, ",[{")) + 1


def finite_number(text: str) -> float:
    """A number with a fraction or an exponent; for `json.loads`.

    Raises:
        JsonShapeError: it is beyond the largest there is.
    """
    value = float(text)
    if not math.isfinite(value):
        raise JsonShapeError(f"{text[:40]}: a number that large is none")
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
