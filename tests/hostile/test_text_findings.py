"""What hostile templates, tokenizers and settings once did. Each test names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.template import Template
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import BundleError, DataError, EdgezoError, UsageError
from edgezo_runtime.system.typed_json import JsonShapeError, parse_object
from tests.hostile.targets import byte_like
from tests.runtime.tiny_tokenizer import byte_tokenizer

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


def _open_tokenizer(folder: Path, change: Any, **options: Any) -> TextTokenizer:
    from edgezo_runtime.bundle.manifest_types import TokenizerInfo

    content = json.loads(byte_tokenizer().core.to_str())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    info = TokenizerInfo("tokenizer.json", None, None, (2,), 0, None, None, False)
    return TextTokenizer.open(folder, info, **options)


def test_merges_without_their_prefix(tmp_path: Path) -> None:
    """The tokenizers package cut bytes off that were not there: a panic, or the process ended."""

    def change(content: dict[str, Any]) -> None:
        vocab = {"hx": 0, "x\u00e9": 1, "hx\u00e9": 2}
        merges = [["hx", "x\u00e9"]]
        content["model"] |= {
            "continuing_subword_prefix": "\u00e9",
            "vocab": vocab,
            "merges": merges,
        }

    with pytest.raises(BundleError, match="merge"):
        _open_tokenizer(tmp_path, change)


def test_a_key_that_is_spelt_in_escapes(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"

    def change(content: dict[str, Any]) -> None:
        content["model"] |= {
            "continuing_subword_prefix": "abcdef",
            "vocab": {"h": 0, "e": 1},
            "merges": [["h", "e"]],
        }

    with pytest.raises(BundleError, match="merge"):
        _open_tokenizer(tmp_path, change)
    text = path.read_text().replace("continuing_subword_prefix", r"c\u006fntinuing_subword_prefix")
    from edgezo_runtime.data.tokenizer import check_tokenizer

    with pytest.raises(BundleError, match="merge"):
        check_tokenizer(text, "tokenizer.json")


def test_a_tokenizer_that_panics_when_it_is_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A panic of the package is no Exception, and went through everything."""

    def change(content: dict[str, Any]) -> None:
        content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}

    tokenizer = _open_tokenizer(tmp_path, change)
    with pytest.raises(BundleError, match="cannot read 'abc'"):
        tokenizer.encode("abc", add_special=False)
    assert "panicked" in capfd.readouterr().err


def test_tokens_that_the_model_does_not_have(tmp_path: Path) -> None:
    """2**32 - 1 was an OverflowError when the rows were stored."""

    def change(content: dict[str, Any]) -> None:
        content["model"]["vocab"]["z"] = 2**32 - 1

    for options in ({}, {"vocab_size": 300}):
        with pytest.raises(BundleError, match="makes the token"):
            _open_tokenizer(tmp_path, change, **options).encode("z", add_special=False)
    assert _open_tokenizer(tmp_path, change).encode("a", add_special=False)


def test_half_of_a_surrogate_pair_in_a_text() -> None:
    with pytest.raises(BundleError, match="cannot read"):
        byte_tokenizer().encode("\ud800", add_special=False)
    with pytest.raises(UsageError, match="surrogate"):
        Template.parse("{a} \ud800")


HEAVY = (
    "{{ 'a' * 10 ** 11 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 7 ** 99999999 }}",
    "{{ [1] * 10 ** 10 }}",
    "{{ 'a'.center(10 ** 10) }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ 'a' | indent(10000000000, true) }}",
    "{{ 'a'.ljust(9999999999) }}",
    "{{ 'a\\t'.expandtabs(9999999999) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "{{ [1] | batch(10000000000, 'x') | list }}",
    "{{ [1] | tojson(indent=10000000000) }}",
    "{{ ('a' * 1000).replace('a', 'b' * 1000000) }}",
    "{{ 'abc' * 1000000 | int | string ~ 'x' * 100000000 }}",
    "{{ lipsum(n=1000000) }}",
    "{{ ((['a' * 1000000]) * 1000) | join }}",
    "{{ ''.join(['a' * 1000000] * 1000) }}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}"
    "{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
    "{{ n.s }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% set x = 'a'.encode().ljust(400000000) %}",
    "{% set x = (1).to_bytes(400000000, 'big') %}",
    "{% set x = ('a' * 10000) | replace(old='a', new='b' * 40000) %}",
    "{% set x = (['a'] * 10000) | replace('a', 'b' * 40000) %}",
    "{% set x = range(10000) | join('x' * 40000) %}",
    "{% set x = 'x' * 40000 %}{{ x.join(range(10000) | map('string')) }}",
    "{% set x = (['a' * 1000000] * 400) | map('string') | join %}",
    "{% set x = (['a' * 1000000] * 400) | select | join %}",
    "{% set x = (['a' * 1000000] * 400) | unique | list %}",
    "{% set x = ([[0] * 100000] * 500) | sum(start=[]) %}",
    "{% set x %}{% for i in range(4000) %}" + "z" * 100000 + "{% endfor %}{% endset %}",
    "{% set x = ('abc ' * 8000000).split() %}",
    "{% set x = ('abc\n' * 8000000).splitlines() %}",
    "{% set x = ('abc ' * 8000000) | title %}",
    "{% set x = ('a' * 60000000) | list %}",
    "{% set x = 'a' * 30000000 %}{{ x[1:] }}{% set y = [x[1:], x[2:], x[3:], x[4:]] %}",
    "{% set x = 5 | round(1000000000, 'ceil') %}",
    "{% set x = 5 | round(-1000000000) %}",
    "{% set x = ('f' * 60000000) | int(0, 16) %}",
    "{{ strftime_now('%c' * 1000000) }}",
    "{{ ('\x01' * 30000000) | tojson }}",
    "{{ [messages] | tojson(indent=1000000) }}",
    "{{ 'a' | random }}",
    "{{ ('<!---->' * 100000) | striptags }}",
    "{{ 'abc' | safe | escape | wordwrap(1) }}",
    "{{ ('&' * 5000000) | safe + '<' * 50000000 }}",
    "{% set n = namespace(a=[1], b=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}"
    "{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}",
    "{% set n = namespace(a=(1,)) %}{% for i in range(60) %}{% set n.a = (n.a, n.a) %}{% endfor %}"
    "{{ {}[n.a] }}",
    "{% macro f() %}{{ f(varargs, varargs) }}{% endmacro %}{{ f(1) }}",
    "{% set n = namespace(a=1) %}{% for i in range(60) %}{% set n.a = namespace(a=n.a, b=n.a) %}"
    "{% endfor %}{{ n.a }}",
    "{{ [[1, 2]] | map('edgezo joined') | join }}",
    "{{ 'a' * 60000000 }}{{ ('b' * 60000000).strip('b' * 1000) }}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
)


@pytest.mark.slow
@pytest.mark.parametrize("source", HEAVY)
def test_templates_that_never_end(source: str) -> None:
    """Each took all memory, or more time than there is."""
    chat = ChatTemplate(byte_like(byte_tokenizer(), source))
    with pytest.raises(DataError, match="the chat template refuses"):
        chat.render(MESSAGES, "row 1")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['sys'] }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ ('{0.__class__}' | attr('format'))('') }}",
        "{{ ''|attr('__class__')|attr('__mro__') }}",
        "{{ namespace.__init__ }}",
        "{{ [].append(1) }}",
        "{{ messages.clear() }}",
        "{{ messages[0].update({'role': 'x'}) }}",
    ],
)
def test_templates_cannot_reach_attributes(source: str) -> None:
    """What a sandbox refuses is an error, or nothing at all."""
    chat = ChatTemplate(byte_like(byte_tokenizer(), source))
    try:
        text = chat.render(MESSAGES, "row 1")
    except DataError:
        return
    assert text == ""
    assert messages_are_whole()


def messages_are_whole() -> bool:
    return [message["role"] for message in MESSAGES] == ["user", "assistant"]


@pytest.mark.parametrize(
    "source",
    [
        "{% include 'x' %}",
        "{% import '/etc/passwd' as x %}",
        "{% extends 'x' %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if 1 %}" * 500 + "{% endif %}" * 500,
        "{{ " + "9" * 5000 + " }}",
        "{{ 'a" + "\x00" + "' }}",
        "{{ 1 | nosuch }}",
        "{% autoescape true %}<{% endautoescape %}",
    ],
)
def test_templates_that_do_not_compile_or_reach_files(source: str) -> None:
    try:
        ChatTemplate(byte_like(byte_tokenizer(), source)).render(MESSAGES, "row 1")
    except EdgezoError:
        return
    assert "\x00" in source


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "{% if a %}" + "{% elif a %}" * 20_000 + "{% endif %}",
        "{{ a" + ".b" * 200 + " }}",
        "{{ 1" + "+1" * 200 + " }}",
        "{{ a }}" * 20_000,
    ],
)
def test_templates_that_are_too_much_for_the_compiler(source: str) -> None:
    """Python's compiler says of them that memory is short, and so did the command."""
    with pytest.raises(BundleError, match=r"chat template: .*export the model again"):
        ChatTemplate(byte_like(byte_tokenizer(), source))


@pytest.mark.parametrize("size", [140])
def test_what_is_as_deep_as_allowed_compiles(size: int) -> None:
    deep = (
        "{{ a" + ".b" * size + " }}",
        "{{ " + "not " * size + "a }}",
        "{{ 1" + "+1" * size + " }}",
    )
    wide = "{% if a %}" + "{% elif a %}" * 500 + "{% endif %}"
    for source in (*deep, wide):
        ChatTemplate(byte_like(byte_tokenizer(), source))


def test_words_of_a_template_are_harmless_to_a_terminal() -> None:
    source = "{{ raise_exception('\x1b[2J' ~ 'a' * 100000) }}"
    with pytest.raises(DataError) as caught:
        ChatTemplate(byte_like(byte_tokenizer(), source)).render(MESSAGES, "row 1")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_prompt_template_of_a_megabyte() -> None:
    """It was copied once a character."""
    with pytest.raises(UsageError, match="is longer than"):
        Template.parse("{a}" + "x" * 2**20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested too deeply"),
        ('{"a": "' + "[" * 70 + '"}', None),
        ('{"a": "\\ud83d\\ude00"}', None),
    ],
)
def test_json_of_strangers(text: str, message: str | None) -> None:
    if message is None:
        assert parse_object(text)
        return
    with pytest.raises(JsonShapeError, match=message):
        parse_object(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"lr": NaN}', "not JSON"),
        ("c.json", '{"lr": 1, "lr": 2}', "repeated key"),
        ("c.json", '{"method": "a\\u0000b"}', "a NUL, or characters that are not Unicode"),
        ("c.json", '{"steps": 1' + "0" * 4000 + "}", "expected a smaller number"),
        ("c.json", '{"steps": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply"),
        ("c.toml", "lr = " + "[" * 90_000, "not TOML"),
        ("c.toml", "steps = 1979-05-27", "expected a whole number"),
        ("c.json", " " * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
def test_settings_of_strangers(tmp_path: Path, name: str, text: str, message: str) -> None:
    from edgezo.cli.settings.config_file import read_config

    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path / name, (TuneConfig,))


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ loop.index0 }}/{{ loop.length }}{{ loop.last }}"
        "{{ loop.revindex }}{{ loop.previtem.role if loop.previtem }}{{ loop.nextitem is defined }}"
        "{% else %}-{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ loop.length }}{{ m.content }}{% endfor %}",
        "{% for k, v in messages[0].items() %}{{ k ~ '=' ~ v ~ 1 ~ none }}{% endfor %}",
        "{% for c in 'abc' recursive %}{{ c }}{{ loop('de') if c == 'a' and loop.depth < 2 }}"
        "{% endfor %}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}"
        "{% endfor %}",
        "{{ messages | map(attribute='content') | join(', ') }}{{ messages | length }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list }}",
        "{% set x = namespace(n=0) %}{% for m in messages %}{% set x.n = x.n + 1 %}{% endfor %}"
        "{{ x.n }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ 'a' * 3 }}{{ [1] + [2] }}{{ '%s-%02d' % ('a', 3) }}",
        "{{ 'a\nb' | indent(4) }}{{ 'x'.center(9) }}{{ '{:>5}'.format('a') }}"
        "{{ 'a,b'.split(',') }}",
        "{% macro f(m) %}<{{ m.role }}>{{ caller() if caller }}{% endmacro %}"
        "{% for m in messages %}{{ f(m) }}{% endfor %}{% call f(messages[0]) %}z{% endcall %}",
        "{% filter upper %}abc{% endfilter %}{% set y %}q{{ 1 }}{% endset %}{{ y }}"
        "{{ '' | default('d', true) }}",
        "{{ messages[-1]['content'].replace('e', 'EE') | trim | upper }}{{ '-'.join(['a', 'b']) }}",
    ],
)
def test_templates_that_behave_are_as_they_were(source: str) -> None:
    """Against jinja2's own sandbox."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    expected = plain.from_string(source).render(messages=MESSAGES)
    chat = ChatTemplate(byte_like(byte_tokenizer(), source))
    assert chat.render(MESSAGES, "row 1") == expected
