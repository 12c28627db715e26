"""The methods and filters that chat templates may use, and an upper bound of each one's cost.

A cost function has the parameters of the method or filter it stands for, so arguments may be given
by position or by name. Methods and filters without a cost are refused: those of bytes and numbers,
HTML and random choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2.exceptions import SecurityError
from markupsafe import Markup

from edgezo_runtime.data.chat.allowance import ITEM, OBJECT, Allowance, size

Cost = Callable[..., float]
"""cost(allowance, value, arguments): a number of characters."""

WIDEST = 1000
"""Largest width of a format, in characters."""

_LONGEST_NUMBER = 4300
_MOST_DIGITS = 100
_WIDE_FORMAT = re.compile(r"[0-9]{4}|\*|\{[^{}]*\{")
_SPACES = tuple(chr(code) for code in range(0x3001) if chr(code).isspace())
_ESCAPED = 6  # most characters that one becomes in HTML
_LONGER = 3  # most characters that one becomes in another case


def swell(*values: Any) -> int:
    """Return the factor by which text may grow: next to Markup, other text is escaped."""
    return _ESCAPED if any(isinstance(value, Markup) for value in values) else 1


def format_cost(allowance: Allowance, form: str, values: Any) -> float:
    """Return the cost of `form % values` and `form.format(values)`.

    Raises:
        SecurityError: a width is too large, or comes from a value.
    """
    if _WIDE_FORMAT.search(form):
        raise SecurityError(f"a format with a width like that: {form[:40]!r}")
    places = form.count("%") + form.count("{")
    return len(form) + places * swell(form) * (allowance.shown([values]) + WIDEST)


def _require_width(value: Any) -> int:
    if not isinstance(value, int | float) or not abs(value) <= WIDEST:
        raise SecurityError(f"a width of {str(value)[:20]!r}, at most {WIDEST} is allowed")
    return abs(int(value))


def _scan(_: Allowance, text: Any, *args: Any) -> float:
    return size(text)


def _case(allowance: Allowance, value: Any) -> float:
    return _LONGER * allowance.text(value)


def _strip(allowance: Allowance, value: Any, chars: str | None = None) -> float:
    return allowance.text(value) * max(1, size(chars))


def _split(_: Allowance, text: str, sep: str | None = None, maxsplit: int = -1) -> float:
    parts = text.count(sep) if sep else sum(map(text.count, _SPACES))
    return len(text) + OBJECT * (1 + (parts if maxsplit < 0 else min(parts, maxsplit)))


def _splitlines(_: Allowance, text: str, keepends: bool = False) -> float:
    return len(text) + OBJECT * (1 + sum(map(text.count, _SPACES)))


def _wide(allowance: Allowance, value: Any, width: Any = 80, fillchar: str = " ") -> float:
    return allowance.text(value) + _require_width(width)


def _expandtabs(_: Allowance, text: str, tabsize: int = 8) -> float:
    return len(text) + text.count("\t") * _require_width(tabsize)


def _replace(
    allowance: Allowance, value: Any, old: Any, new: Any, count: int | None = None
) -> float:
    parts = (value, old, new)
    allowance.make(sum(0 if isinstance(part, str) else allowance.text(part) for part in parts))
    text, before, after = (part if isinstance(part, str) else str(part) for part in parts)
    found = text.count(before) if before else len(text) + 1
    return swell(value) * (len(text) + found * len(after))


def _join_method(allowance: Allowance, text: str, values: Any) -> float:
    return _joined(allowance, values, text) * swell(text)


def _join(allowance: Allowance, value: Any, d: Any = "", attribute: Any = None) -> float:
    return _joined(allowance, value, d) + size(value) * size(attribute)


def _joined(allowance: Allowance, values: Any, between: Any) -> float:
    if isinstance(values, str):  # each character becomes a text
        return len(values) * (OBJECT + allowance.text(between))
    return allowance.shown(values) + allowance.text(between) * size(values)


def _indent(
    allowance: Allowance, s: Any, width: Any = 4, first: bool = False, blank: bool = False
) -> float:
    wide = len(width) if isinstance(width, str) else _require_width(width)
    lines = 1 + (sum(map(s.count, _SPACES)) if isinstance(s, str) else 0)
    return allowance.text(s) + lines * (wide + OBJECT)


def _words(allowance: Allowance, value: Any) -> float:
    return OBJECT * allowance.text(value)


def _truncate(
    allowance: Allowance,
    s: Any,
    length: int = 255,
    killwords: bool = False,
    end: str = "...",
    leeway: int | None = None,
) -> float:
    return allowance.text(s) + allowance.text(end)


def _number(_: Allowance, value: Any, *args: Any, **kwargs: Any) -> float:
    if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
        raise SecurityError(f"a number of {len(value)} characters")
    return size(value)


def _round(_: Allowance, value: Any, precision: Any = 0, method: str = "common") -> float:
    if not isinstance(precision, int) or abs(precision) > _MOST_DIGITS:
        raise SecurityError(f"a rounding to {str(precision)[:20]} digits")
    return 1


def _format(allowance: Allowance, value: Any, *args: Any, **kwargs: Any) -> float:
    if not isinstance(value, str):
        raise SecurityError("a format that is not text")
    return format_cost(allowance, value, [*args, *kwargs.values()])


def _nothing(_: Allowance, value: Any, *args: Any, **kwargs: Any) -> float:
    return 0


def _copy(_: Allowance, value: Any) -> float:
    return size(value) * (OBJECT if isinstance(value, str) else ITEM)


def _each(_: Allowance, value: Any, *args: Any, **kwargs: Any) -> float:
    """Return the cost of filters that read an attribute of each item."""
    names = sum(size(name) for name in (*args, *kwargs.values()))
    return size(value) * (ITEM + names)


def _order(allowance: Allowance, value: Any, *args: Any, **kwargs: Any) -> float:
    """Return the cost of filters that compare the items, some in lower case."""
    return _LONGER * allowance.shown(value) + _each(allowance, value, *args, **kwargs)


def _batch(_: Allowance, value: Any, linecount: Any, fill_with: Any = None) -> float:
    return OBJECT * size(value) + ITEM * _require_width(linecount)


def _slice(_: Allowance, value: Any, slices: Any, fill_with: Any = None) -> float:
    return OBJECT * (size(value) + _require_width(slices))


def _sum(_: Allowance, iterable: Any, attribute: Any = None, start: Any = 0) -> float:
    if not isinstance(start, int | float):
        raise SecurityError("a sum of values that are not numbers")
    return size(iterable) * (1 + size(attribute))


def _escape(allowance: Allowance, value: Any) -> float:
    return _ESCAPED * allowance.text(value)


def _text(allowance: Allowance, value: Any) -> float:
    return allowance.text(value)


def _json(
    allowance: Allowance,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> float:
    wide = 0 if indent is None else _require_width(indent)
    between = sum(map(len, separators)) if separators is not None else 0
    shown = allowance.shown([value], wide + between)
    return shown * (_ESCAPED if ensure_ascii else 1)


def _search(allowance: Allowance, value: Any, *args: Any) -> float:
    return allowance.held(value)


METHODS: dict[type, dict[str, Cost]] = {
    str: {
        **dict.fromkeys(
            ("count", "endswith", "find", "index", "partition", "removeprefix", "removesuffix"),
            _scan,
        ),
        **dict.fromkeys(("rfind", "rindex", "rpartition", "startswith"), _scan),
        **dict.fromkeys(("isalnum", "isalpha", "isascii", "isdecimal", "isdigit"), _scan),
        **dict.fromkeys(("isidentifier", "islower", "isnumeric", "isprintable"), _scan),
        **dict.fromkeys(("isspace", "istitle", "isupper"), _scan),
        **dict.fromkeys(("capitalize", "casefold", "lower", "swapcase", "title", "upper"), _case),
        **dict.fromkeys(("lstrip", "rstrip", "strip"), _strip),
        **dict.fromkeys(("rsplit", "split"), _split),
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _wide),
        "expandtabs": _expandtabs,
        "join": _join_method,
        "replace": _replace,
        "splitlines": _splitlines,
    },
    list: {"copy": _copy, "count": _search, "index": _search},
    tuple: {"count": _search, "index": _search},
    dict: {"copy": _copy, **dict.fromkeys(("get", "items", "keys", "values"), _nothing)},
}
"""Costs of methods, by type and name."""

FILTERS: dict[str, Cost] = {
    **dict.fromkeys(("abs", "attr", "count", "d", "default", "first", "last", "length"), _nothing),
    **dict.fromkeys(("capitalize", "lower", "upper"), _case),
    **dict.fromkeys(("title", "wordcount"), _words),
    **dict.fromkeys(("filesizeformat", "float", "int"), _number),
    **dict.fromkeys(("e", "escape"), _escape),
    **dict.fromkeys(("safe", "string"), _text),
    **dict.fromkeys(("items", "list", "reverse"), _copy),
    **dict.fromkeys(("map", "reject", "rejectattr", "select", "selectattr"), _each),
    **dict.fromkeys(("dictsort", "groupby", "max", "min", "sort", "unique"), _order),
    "batch": _batch,
    "center": _wide,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "slice": _slice,
    "sum": _sum,
    "tojson": _json,
    "trim": _strip,
    "truncate": _truncate,
}
"""Costs of filters, by name."""
