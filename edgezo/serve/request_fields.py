"""Fields of a request's JSON: each is taken once, with its type; what is left is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgezo.serve.refusals import invalid, unsupported

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class RequestFields:
    """The fields of an object; a field that is null counts as absent.

    Args:
        values: the object.
        inside: name of the field that it is the value of; "" for the request.
    """

    def __init__(self, values: Mapping[str, Any], inside: str = "") -> None:
        self._values = {key: value for key, value in values.items() if value is not None}
        self._inside = f"{inside}." if inside else ""

    @property
    def unknown(self) -> list[str]:
        """Names that nobody has taken."""
        return [self._inside + name for name in self._values]

    def value(self, name: str) -> Any:
        """Any value; None if it is absent."""
        return self._values.pop(name, None)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number within limits."""
        value = self.value(name)
        if value is not None and (type(value) is not int or not low <= value <= high):
            raise invalid(self._inside + name, f"expected a whole number of {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number within limits."""
        value = self.value(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not low <= value <= high:  # NaN is in no range
            raise invalid(self._inside + name, f"expected a number of {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false; false if it is absent."""
        value = self.value(name)
        if value is not None and type(value) is not bool:
            raise invalid(self._inside + name, "expected true or false")
        return bool(value)

    def typed(self, name: str, kind: type) -> Any:
        """A value of a type; None if it is absent."""
        value = self.value(name)
        if value is not None and type(value) is not kind:
            raise invalid(self._inside + name, f"expected {_KINDS[kind]}")
        return value

    def ignore(self, *names: str) -> None:
        """Take fields that change nothing here."""
        for name in names:
            self._values.pop(name, None)

    def refuse(self, name: str, reason: str, *harmless: Any) -> None:
        """Refuse a field, unless its value asks for nothing."""
        value = self.value(name)
        if value is not None and not any(
            value == own and type(value) in (type(own), int, float) for own in harmless
        ):
            raise unsupported(self._inside + name, f"is not supported: {reason}")
