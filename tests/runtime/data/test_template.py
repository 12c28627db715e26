"""Templates: names in braces and nothing else."""

import pytest

from edgezo_runtime.data.template import Template
from edgezo_runtime.errors import DataError, UsageError

ROW = {"sentence": "fine {x}", "question": "why?", "year": 1999, "none": None, "a b": "spaced"}


def render(source: str, row: dict[str, object] | None = None) -> str:
    template = Template.parse(source)
    return template.render(template.values(ROW if row is None else row, "f.jsonl, line 3"))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{sentence} It was", "fine {x} It was"),
        ("{question}\n{sentence}{question}", "why?\nfine {x}why?"),
        ("{{{question}}} {{}}", "{why?} {}"),
        ("{{question}} {question}", "{question} why?"),
        ("{a b}", "spaced"),
    ],
)
def test_render(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{a.b}", "character 1: attribute access"),
        ("{a[0]}", "indexing"),
        ("{a!r}", "conversion"),
        ("{a:>10}", "a format"),
        ("x {}", "character 3: no name"),
        ("{ a }", "spaces around"),
        ("{a", "'{' without '}'"),
        ("a}", "character 2: '}' without '{'"),
        ("{a{b}}", "inside braces"),
        ("no field", "names no field"),
        ("{{a}}", "names no field"),
        ("", "names no field"),
    ],
)
def test_parse_refuses(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Template.parse(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{text}", r"^f\.jsonl, line 3: no field 'text'; the row has 'sentence', 'question', "),
        ("{year}", "field 'year' is the number 1999, expected a string"),
        ("{none}", "field 'none' is null"),
    ],
)
def test_row_refused(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        render(source)


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(DataError, match="half of a surrogate pair at character 1"):
        render("{t}", {"t": "a\ud800"})


def test_message_lists_ten_fields_at_most() -> None:
    with pytest.raises(DataError, match=r"'f9', and 90 more$"):
        render("{t}", {f"f{i}": "" for i in range(100)})


@pytest.mark.parametrize("value", [True, [], {}, 1.5])
def test_other_types_are_named(value: object) -> None:
    with pytest.raises(DataError, match=r"is (true|an array|an object|the number 1\.5), expected"):
        render("{t}", {"t": value})
