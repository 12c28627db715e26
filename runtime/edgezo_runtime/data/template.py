"""Prompt templates: "{sentence} It was" filled with the fields of a row.

Braces contain names only; "{{" and "}}" stand for braces. Python's format language is not used: it
would give a template access to attributes and indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgezo_runtime.errors import DataError, MissingFieldError, UsageError

_LONGEST = 1 << 14

_REFUSED = {
    ".": "attribute access",
    "[": "indexing",
    "]": "indexing",
    "!": "a conversion",
    ":": "a format",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        source: the text of the template.
        literals: the texts before, between and after the fields, one more than `names`.
        names: the field names in their order, with repeats.
    """

    source: str
    literals: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, source: str) -> Template:
        """Read a template.

        Raises:
            UsageError: no field, a brace without its partner, an empty name, or other syntax than a
                name in the braces (".", "[", "!", ":").
        """
        if len(source) > _LONGEST:
            raise UsageError(f"template '{source:.80}' is longer than {_LONGEST} characters")
        if not _has_utf8(source):
            raise UsageError(f"template {source[:80]!r} has half of a surrogate pair in it")
        literals, names, position = [""], list[str](), 0
        while position < len(source):
            char = source[position]
            if source[position : position + 2] in ("{{", "}}"):
                literals[-1] += char
                position += 2
            elif char == "}":
                raise _bad(source, position, "'}' without '{'; write '}}' for a brace")
            elif char == "{":
                end = source.find("}", position)
                if end < 0:
                    raise _bad(source, position, "'{' without '}'; write '{{' for a brace")
                names.append(_check_name(source, position, source[position + 1 : end]))
                literals.append("")
                position = end + 1
            else:
                literals[-1] += char
                position += 1
        if not names:
            raise UsageError(
                f"template '{source:.80}' names no field; write it like '{{sentence}} It was'"
            )
        return cls(source, tuple(literals), tuple(names))

    def values(self, row: Mapping[str, object], where: str) -> dict[str, str]:
        """Take the template's fields from a row.

        Args:
            row: the row's fields.
            where: file and line, for the message.

        Returns:
            Each field's text.

        Raises:
            DataError: a field is missing or is not text.
        """
        return {name: text_field(row, name, where) for name in dict.fromkeys(self.names)}

    def render(self, values: Mapping[str, str]) -> str:
        """Fill in the fields; `values` comes from `values()` and may be truncated."""
        parts = [self.literals[0]]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            parts += (values[name], literal)
        return "".join(parts)


def text_field(row: Mapping[str, object], name: str, where: str) -> str:
    """Take one text field from a row.

    Args:
        row: the row's fields.
        name: the field.
        where: file and line, for the message.

    Returns:
        The text; it may be empty.

    Raises:
        DataError: the field is missing, not a string, or contains half of a surrogate pair.
    """
    if name not in row:
        raise MissingFieldError(f"{where}: no field '{name}'; the row has {list_fields(row)}")
    value = row[name]
    if not isinstance(value, str):
        raise DataError(
            f"{where}: field '{name}' is {kind_of(value)}, expected a string; "
            "quote it in the file or leave it out of the template"
        )
    return check_text(value, f"field '{name}'", where)


def check_text(value: str, what: str, where: str) -> str:
    """Refuse text that has no UTF-8 form.

    Raises:
        DataError: it contains a lone surrogate such as "\\ud800".
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {what} has half of a surrogate pair at character {error.start}; "
            "write it again as UTF-8"
        ) from error
    return value


def _has_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def list_fields(row: Mapping[str, object]) -> str:
    """List at most ten of a row's fields, for a message."""
    if not row:
        return "no fields"
    shown = [f"{name[:40]!r}{' (null)' * (row[name] is None)}" for name in list(row)[:10]]
    more = [f"and {len(row) - 10} more"] if len(row) > 10 else []
    return ", ".join(shown + more)


def kind_of(value: object) -> str:
    """Name the JSON type of a value, and the value if it is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value!s:.20}"
    names: Sequence[tuple[type, str]] = ((str, "a string"), (list, "an array"), (dict, "an object"))
    found = (name for kind, name in names if isinstance(value, kind))
    return next(found, f"a value of the type {getattr(value, 'kind', type(value).__name__)}")


def _check_name(source: str, position: int, name: str) -> str:
    for char, what in _REFUSED.items():
        if char in name:
            raise _bad(source, position, f"{what} in '{{{name}}}'; only a field's name is allowed")
    if "{" in name:
        raise _bad(source, position, "'{' inside braces; write '{{' for a brace")
    if not name.strip():
        raise _bad(source, position, "no name in the braces; write '{{}}' for two braces")
    if name != name.strip():
        raise _bad(source, position, f"spaces around the name in '{{{name}}}'")
    return name


def _bad(source: str, position: int, what: str) -> UsageError:
    shown = source if len(source) <= 80 else f"{source[:77]}..."
    return UsageError(f"template '{shown}', character {position + 1}: {what}")
