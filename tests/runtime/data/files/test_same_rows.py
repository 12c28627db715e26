"""The same rows in every format are the same examples: token ids, scored places, classes."""

from pathlib import Path

import pytest

from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import load_questions
from edgezo_runtime.data.sources import load_examples
from tests.runtime.tiny_tokenizer import byte_tokenizer

CASES = Path(__file__).parents[3] / "cases" / "data"
CHAT = (
    "{% if tools %}{{ '<user>' ~ (tools | tojson) }}{% endif %}"
    "{% for m in messages %}{{ '<' + m['role'] + '>' + (m['content'] or '') }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
CHATTY = byte_tokenizer(chat_template=CHAT)
CLASSES = {"template": "{text} It was", "labels": (" bad", " good"), "max_seq": 64}


def load(name: str, **options: object) -> ExampleSet:
    if name.endswith((".parquet", "saved", "hub")):
        pytest.importorskip("pyarrow")
    return load_examples(CASES / name, CHATTY, **({"max_seq": 400} | options))  # type: ignore[arg-type]


def require_same(got: ExampleSet, expected: ExampleSet) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.places.tolist() == other.places.tolist()
        assert one.label == other.label
    assert got.tokens_sha256() == expected.tokens_sha256()


@pytest.mark.parametrize(
    "name",
    [
        "classes.json",
        "classes.csv",
        "classes.tsv",
        "class_words.csv",
        "classes.jsonl.gz",
        "classes.parquet",
        "saved",
        "hub",
    ],
)
def test_classes(name: str) -> None:
    expected = load("classes.jsonl", **CLASSES)
    assert [example.label for example in expected] == [1, 0, 1]
    require_same(load(name, **CLASSES), expected)


@pytest.mark.parametrize(
    ("name", "as_messages"),
    [
        ("share_gpt.jsonl", "messages.jsonl"),
        ("share_gpt.json", "messages.jsonl"),
        ("messages.parquet", "messages.jsonl"),
        ("prompt_messages.jsonl", "last_message.jsonl"),
        ("instruction_history.jsonl", "history_messages.jsonl"),
    ],
)
def test_conversations(name: str, as_messages: str) -> None:
    """Pins that a null column of tools is none, and that nulls in messages leave the text alone."""
    got = load(name)
    require_same(got, load(as_messages))
    assert [w.name for w in got.warnings if w.name.startswith(("unused", "mixed"))] == []


@pytest.mark.parametrize("name", ["mixed.csv", "mixed.parquet"])
def test_rows_of_several_kinds(name: str) -> None:
    got, expected = load(name), load("mixed.jsonl")
    require_same(got, expected)
    assert got.warnings == expected.warnings
    assert ("mixed-kinds", 3) in [(w.name, w.count) for w in got.warnings]


def test_questions_are_the_same() -> None:
    expected = load_questions(CASES / "messages.jsonl", CHATTY, max_seq=400)
    got = load_questions(CASES / "share_gpt.json", CHATTY, max_seq=400)
    assert got.prompts == expected.prompts
    assert [q.answers for q in got.questions] == [q.answers for q in expected.questions]
    assert [q.answers for q in got.questions] == [("no",), ("yes",)]


def test_several_files_are_one_set() -> None:
    one = load("classes.jsonl", **CLASSES)
    both = load_examples(
        [CASES / "classes.jsonl", CASES / "classes.csv"],
        CHATTY,
        template="{text} It was",
        labels=(" bad", " good"),
        max_seq=64,
    )
    assert [e.label for e in both] == [e.label for e in one] * 2
    assert [e.line for e in both] == [1, 2, 3, 4, 5, 6]
