"""Costs of methods and filters: never below what they make, with arguments by place and by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from jinja2.exceptions import SecurityError
from markupsafe import Markup

from edgezo_runtime.data.chat.allowance import Allowance
from edgezo_runtime.data.chat.costs import FILTERS, METHODS, WIDEST, format_cost, swell
from edgezo_runtime.data.chat.sandbox import ChatEnvironment

ENVIRONMENT = ChatEnvironment()

CALLS: list[tuple[Any, str, tuple[Any, ...], dict[str, Any]]] = [
    ("a b  c", "split", (), {}),
    ("a,b,c", "split", (",",), {"maxsplit": 1}),
    ("a\nb\r\nc", "splitlines", (), {"keepends": True}),
    ("ab", "center", (40,), {}),
    ("ab", "ljust", (40, "-"), {}),
    ("a\tb", "expandtabs", (200,), {}),
    ("aaaa", "replace", ("a", "bcd"), {}),
    ("aaaa", "replace", ("", "bcd"), {}),
    (", ", "join", (["x" * 50, "y"],), {}),
    ("ß" * 20, "upper", (), {}),
    ("  x ", "strip", (), {}),
    ("title case", "title", (), {}),
    ([1, 2, 3], "copy", (), {}),
    ({"a": 1}, "copy", (), {}),
]


def length(value: Any) -> int:
    """Characters that a result holds."""
    if isinstance(value, str):
        return len(value)
    return sum(map(length, value)) if isinstance(value, (list, tuple)) else 1


@pytest.mark.parametrize(("value", "name", "args", "kwargs"), CALLS)
def test_a_method_makes_no_more_than_it_costs(
    value: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    cost = METHODS[type(value)][name](Allowance(), value, *args, **kwargs)
    assert cost >= length(getattr(value, name)(*args, **kwargs))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'ab' | center(9) }}", "    ab   "),
        ("{{ 'ab' | center(width=9) }}", "    ab   "),
        ("{{ ['a', 'b'] | join(', ') }}", "a, b"),
        ("{{ ['a', 'b'] | join(d=', ') }}", "a, b"),
        ("{{ 'aXa' | replace('X', '--') }}", "a--a"),
        ("{{ 'x\ny' | indent(width=2, first=true) }}", "  x\n  y"),
        ("{{ [3, 1] | sort | join }}", "13"),
        ("{{ [1, 2, 3] | sum }}", "6"),
        ("{{ [1, 2, 3] | batch(2) | list | length }}", "2"),
        ("{{ '%s-%s' | format(1, 2) }}", "1-2"),
        ("{{ 2.567 | round(1) }}", "2.6"),
        ("{{ '12' | int + 1 }}", "13"),
    ],
)
def test_filters_still_do_their_work(source: str, expected: str) -> None:
    ENVIRONMENT.allowance.begin(0)
    assert ENVIRONMENT.from_string(source).render() == expected


def test_costs_take_what_filters_take() -> None:
    """An argument given by its name must not be a TypeError of the cost."""
    for name, cost in FILTERS.items():
        made = ChatEnvironment.__mro__[1]().filters.get(name)
        if made is None or name == "tojson":  # replaced by this project's own
            continue
        parameters = list(inspect.signature(inspect.unwrap(made)).parameters.values())
        given = getattr(made, "jinja_pass_arg", None)
        own = inspect.signature(cost).parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own.values()):
            continue
        for parameter in parameters[2 if given else 1 :]:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                continue
            assert parameter.name in own, f"{name}({parameter.name})"


def test_widths_are_bounded() -> None:
    own = Allowance()
    for name, args in (
        ("center", (WIDEST + 1,)),
        ("zfill", (10**9,)),
        ("ljust", ("9",)),
        ("expandtabs", (10**6,)),
    ):
        with pytest.raises(SecurityError, match=r"a width of .*, at most 1000 is allowed"):
            METHODS[str][name](own, "a\tb", *args)
    with pytest.raises(SecurityError, match="a width of"):
        FILTERS["batch"](own, [1], 10**6)
    with pytest.raises(SecurityError, match="a width of"):
        FILTERS["tojson"](own, [1], indent=10**6)


@pytest.mark.parametrize("form", ["%1000d", "%*d", "{:9999}", "{:{w}}"])
def test_formats_with_a_wide_or_given_width_are_refused(form: str) -> None:
    with pytest.raises(SecurityError, match="a format with a width like that"):
        format_cost(Allowance(), form, [1])


@pytest.mark.parametrize("values", [[1], ["x" * 500], [[1, 2, "three"]], [10**300]])
def test_formats_make_no_more_than_they_cost(values: list[Any]) -> None:
    for form in ("%s", "%r and more", "{!r}", "{0} {0} {0}"):
        made = form % tuple(values) if "%" in form else form.format(*values)
        assert format_cost(Allowance(), form, values) >= len(made)


def test_markup_escapes_what_it_is_joined_with() -> None:
    assert swell("a", "b") == 1
    assert swell("a", Markup("b")) >= len(str(Markup("") + "'")) == 5


@pytest.mark.parametrize(
    ("name", "value", "args", "message"),
    [
        ("int", "9" * 5000, (), "a number of 5000 characters"),
        ("round", 5, (10**9,), "a rounding to 1000000000 digits"),
        ("format", 5, (), "a format that is not text"),
        ("sum", [[1]], (None, []), "a sum of values that are not numbers"),
    ],
)
def test_work_without_a_bound_is_refused(
    name: str, value: Any, args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(SecurityError, match=message):
        FILTERS[name](Allowance(), value, *args)


def test_methods_that_change_or_leave_text_have_no_cost() -> None:
    assert not {"append", "clear", "extend", "sort", "pop"} & METHODS[list].keys()
    assert not {"update", "clear", "pop", "setdefault"} & METHODS[dict].keys()
    assert not {"encode", "format", "format_map", "translate"} & METHODS[str].keys()
    assert not {"random", "pprint", "wordwrap", "striptags", "urlize", "xmlattr"} & FILTERS.keys()
