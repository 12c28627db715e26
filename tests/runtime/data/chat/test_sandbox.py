"""The sandbox of chat templates: what is refused, and that everything is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from jinja2.exceptions import SecurityError

from edgezo_runtime.data.chat import allowance
from edgezo_runtime.data.chat.allowance import MOST_CHARACTERS, MOST_STEPS
from edgezo_runtime.data.chat.sandbox import ChatEnvironment


@pytest.fixture(autouse=True)
def _clock_that_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not run out of time before a template runs out of steps."""
    monkeypatch.setattr(allowance, "time", SimpleNamespace(monotonic=lambda: 0.0))


def render(source: str, **given: Any) -> tuple[str, ChatEnvironment]:
    environment = ChatEnvironment()
    template = environment.from_string(source)
    environment.allowance.begin(0)
    return template.render(**given), environment


def steps_of(source: str, **given: Any) -> int:
    return MOST_STEPS - render(source, **given)[1].allowance._steps


def characters_of(source: str, **given: Any) -> int:
    return MOST_CHARACTERS - render(source, **given)[1].allowance._characters


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for a in [1, 2, 3] %}{{ a }}{% if a == 2 %}{% break %}{% endif %}{% endfor %}", "12"),
        ("{% set n = namespace(x=1) %}{% set n.x = n.x + 1 %}{{ n.x }}", "2"),
        ("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m('x') }}", "<x>"),
        ("{{ 'a' ~ 1 ~ none }}", "a1None"),
        ("{{ {'a': [1, 2]}['a'][1:] }}", "[2]"),
        ("{{ 'a-b'.split('-') | join('+') }}", "a+b"),
        ("{{ '%s' % 'x' }}{{ '{}'.format('y') }}", "xy"),
        ("{% generation %}x{{ 1 }}{% endgeneration %}", "x1"),
        ("{{ [1, 2] | map('string') | join }}", "12"),
        ("{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{{ loop.index }}{% endfor %}", "x11"),
        ("{{ 3 * 'ab' }}{{ 2 ** 10 }}{{ 7 * 6 }}", "ababab102442"),
    ],
)
def test_templates_do_their_work(source: str, expected: str) -> None:
    assert render(source)[0] == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ 2 ** 5000 }}", "a power that is too large"),
        ("{{ 2 ** 1e308 }}", "a power that is too large"),
        ("{{ 2 ** 2040 * 2 ** 2040 * 2 ** 2040 }}", "a product that is too large"),
        ("{{ 'x' * 10 ** 9 }}", "too much text"),
        ("{{ [1] * 10 ** 9 }}", "too much text"),
        ("{{ 'abc'.encode() }}", "templates do not call str.encode"),
        ("{{ (5).bit_length() }}", "templates do not call int.bit_length"),
        ("{{ 'x' | random }}", "templates do not use the filter 'random'"),
        ("{{ ['x'] | map('random') | list }}", "templates do not use the filter 'random'"),
        ("{{ [1] | map('edgezo counted') | list }}", "no filter named 'edgezo counted'"),
        ("{% for a in range(99999) %}{% for b in range(9) %}{% endfor %}{% endfor %}", "steps"),
    ],
)
def test_work_without_an_end_is_refused(source: str, message: str) -> None:
    with pytest.raises(SecurityError, match=message):
        render(source)


def test_what_is_given_cannot_be_called() -> None:
    with pytest.raises(SecurityError, match="templates do not call"):
        render("{{ f() }}", f=lambda: "x")


def test_functions_of_jinja_that_make_text_by_chance_are_gone() -> None:
    assert "lipsum" not in ChatEnvironment().globals
    assert "range" in ChatEnvironment().globals


def test_every_iteration_call_and_filter_is_a_step() -> None:
    loop = "{% for a in items %}{% endfor %}"
    found = [steps_of(loop, items=list(range(count))) for count in (0, 10, 110)]
    assert found[1] - found[0] == 10
    assert found[2] - found[1] == 100
    assert steps_of("{{ 'a'.upper() }}") == 1
    assert steps_of("{{ 'a' | upper }}") == 1
    assert steps_of("{{ 'a' | upper | lower }}") == 2
    assert steps_of("{{ ['a', 'b'] | map('upper') | join }}") >= 4


@pytest.mark.parametrize(
    "source",
    [
        "{{ text }}",
        "{{ text ~ '' }}",
        "{{ text + '' }}",
        "{{ [text] }}",
        "{{ text[0:] }}",
        "{% set x = text[0:] %}",
        "{% set x = text ~ 'a' %}",
        "{% set x = text.upper() %}",
        "{% set x = text | upper %}",
        "{% set x = '%s' % text %}",
        "{% set x = '{}'.format(text) %}",
    ],
)
def test_every_character_is_counted(source: str) -> None:
    short, long = (characters_of(source, text="x" * count) for count in (1000, 51_000))
    assert long - short >= 50_000


def test_plain_text_is_counted_each_time() -> None:
    once = characters_of("z" * 1000)
    assert once >= 1000
    loop = "{% for a in range(10) %}" + "z" * 1000 + "{% endfor %}"
    assert characters_of(loop) >= 10_000


def test_a_filter_is_guarded_when_it_is_added() -> None:
    environment = ChatEnvironment()
    environment.add_filter("tojson", lambda value: f"<{value}>")
    environment.add_filter("shout", str.upper)
    environment.allowance.begin(0)
    assert environment.from_string("{{ 'a' | tojson }}").render() == "<a>"
    with pytest.raises(SecurityError, match="templates do not use the filter 'shout'"):
        environment.from_string("{{ 'a' | shout }}").render()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ 1 }}" * 20_000, "more than 20000 parts"),
        ("{{ " + "-" * 200 + "1 }}", "line 1: more than 150 levels"),
        ("{% if a %}" + "{% elif a %}" * 501 + "{% endif %}", "line 1: more than 500 branches"),
        ("{% autoescape true %}{% endautoescape %}", "do not use {% autoescape %}"),
    ],
)
def test_templates_beyond_the_compiler_are_refused(source: str, message: str) -> None:
    with pytest.raises(SecurityError, match=message):
        ChatEnvironment().from_string(source)
