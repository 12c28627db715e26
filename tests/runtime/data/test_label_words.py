"""Label words: their tokens, classes of rows, and prompts that keep their template."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.label_words import class_of
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError, UsageError
from tests.runtime.tiny_tokenizer import BOS, byte_tokenizer, masked_tokenizer, write_rows

TOKENIZER = byte_tokenizer()
TEMPLATE = "{s} It was"
LABELS = (" terrible", " great")


def load(
    path: Path, rows: list[dict[str, Any]], tokenizer: TextTokenizer = TOKENIZER, **options: Any
) -> ExampleSet:
    defaults: dict[str, Any] = {"template": TEMPLATE, "labels": LABELS, "max_seq": 64}
    file = write_rows(path / "f.jsonl", rows)
    return load_examples(file, tokenizer, **(defaults | options))


def test_one_token_words(tmp_path: Path) -> None:
    got = load(tmp_path, [{"s": "the film", "label": 1}, {"s": "bad", "label": "terrible"}])
    assert got.kind == "labels"
    assert got.label_words == LABELS
    assert [TOKENIZER.decode(tokens) for tokens in got.label_tokens] == list(LABELS)
    assert [e.label for e in got] == [1, 0]
    assert [TOKENIZER.decode(e.tokens.tolist()) for e in got] == ["the film It was", "bad It was"]
    assert [e.places.tolist() for e in got] == [[e.tokens.size - 1] for e in got]
    assert [e.line for e in got] == [1, 2]
    assert got.report.class_counts == (1, 1)
    assert got.warnings == ()


def test_leading_space_makes_another_token(tmp_path: Path) -> None:
    spaced = load(tmp_path, [{"s": "bad", "label": 0}])
    bare = load(tmp_path, [{"s": "bad", "label": 0}], labels=("terrible", "great"))
    assert spaced.label_tokens != bare.label_tokens


def test_bos_comes_first(tmp_path: Path) -> None:
    got = load(tmp_path, [{"s": "bad", "label": 0}], byte_tokenizer(add_bos=True))
    assert got.examples[0].tokens[0] == BOS
    assert got.label_tokens == load(tmp_path, [{"s": "bad", "label": 0}]).label_tokens


def test_a_word_of_several_tokens_makes_all_candidates(tmp_path: Path) -> None:
    got = load(tmp_path, [{"s": "bad", "label": 0}], labels=(" very bad", " great"))
    assert got.kind == "candidates"
    assert [len(tokens) for tokens in got.label_tokens] == [2, 1]
    assert got.sequences_per_example == 2
    assert got.report.longest == got.examples[0].tokens.size + 1
    assert [w.name for w in got.warnings] == ["label-tokens", "empty-classes"]


def test_merging_boundary_tokenizes_words_alone(tmp_path: Path) -> None:
    """A prompt that ends with a space: " great" would swallow the space."""
    rows = [{"s": "bad", "label": 0}, {"s": "good", "label": 1}]
    got = load(tmp_path, rows, template="{s} It was ", labels=("terrible", "great"))
    assert [TOKENIZER.decode(tokens) for tokens in got.label_tokens] == ["terrible", "great"]
    assert TOKENIZER.decode(got.examples[0].tokens.tolist()) == "bad It was "
    (warning,) = got.warnings
    assert (warning.name, warning.count) == ("label-boundary", 2)


def test_words_do_not_depend_on_the_row(tmp_path: Path) -> None:
    """One row whose field, at the end of the prompt, ends with a space."""
    rows = [{"s": "the film", "label": 0}, {"s": "bad ", "label": 1}, {"s": "so", "label": 1}]
    got = load(tmp_path, rows, template="{s}", labels=("terrible", "great"))
    alone = tuple(tuple(TOKENIZER.encode(w, add_special=False)) for w in ("terrible", "great"))
    assert got.label_tokens == alone
    assert [(w.name, w.count) for w in got.warnings] == [("label-boundary", 1)]
    first_is_odd = load(tmp_path, rows[1:], template="{s}", labels=("terrible", "great"))
    assert first_is_odd.label_tokens == alone


def test_truncation_keeps_the_template(tmp_path: Path) -> None:
    template = "the question {a} then {b} It was"
    rows = [{"a": "story " * 50, "b": "light music", "label": 0}, {"a": "x", "b": "y", "label": 1}]
    got = load(tmp_path, rows, template=template, max_seq=20)
    cut = TOKENIZER.decode(got.examples[0].tokens.tolist())
    assert cut.startswith("the question story story")
    assert cut.endswith("story then light music It was")
    assert got.examples[0].tokens.size == 20
    full = len(
        TOKENIZER.encode(f"the question {'story ' * 50} then light music It was", add_special=True)
    )
    assert got.report.truncation.rows == 1
    assert got.report.truncation.tokens == got.report.truncation.prompt_tokens == full - 20
    assert got.warnings[0].name == "truncated"
    assert "1 of 2 rows are longer than 20 tokens" in got.warnings[0].message


def test_two_long_fields_share_the_loss(tmp_path: Path) -> None:
    rows = [{"a": "story " * 50, "b": "music " * 40, "label": 0}]
    got = load(tmp_path, rows, template="{a}and {b} It was", max_seq=24)
    text = TOKENIZER.decode(got.examples[0].tokens.tolist())
    assert abs(text.count("story") - text.count("music")) <= 1
    assert text.endswith(" It was")


def test_candidates_leave_room_for_their_words(tmp_path: Path) -> None:
    rows = [{"s": "story " * 50, "label": 0}]
    got = load(tmp_path, rows, labels=(" a very bad story", " great"), max_seq=20)
    assert got.report.longest == 20
    assert got.examples[0].tokens.size == 17


def test_template_longer_than_max_seq_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"line 1: the template alone has 2 tokens and at most 1 fit"
    ):
        load(tmp_path, [{"s": "bad", "label": 0}], max_seq=1)


@settings(max_examples=60, deadline=None)
@given(first=st.text(max_size=60), second=st.text(max_size=60), max_seq=st.integers(8, 40))
def test_any_text_fits(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str, max_seq: int
) -> None:
    rows = [{"a": first, "b": second, "label": 0}]
    folder = tmp_path_factory.mktemp("rows")
    got = load(folder, rows, template="{a} and {b}\nIt was", max_seq=max_seq)
    (example,) = got.examples
    assert 3 <= example.tokens.size <= max_seq
    assert TOKENIZER.decode(example.tokens.tolist(), skip_special=False).endswith("\nIt was")
    full = len(TOKENIZER.encode(f"{first} and {second}\nIt was", add_special=True))
    assert got.report.truncation.tokens == full - example.tokens.size


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, 0), (1, 1), ("great", 1), (" great ", 1), ("terrible", 0)],
)
def test_class_of(value: object, label: int) -> None:
    assert class_of({"label": value}, LABELS, "f, line 1") == label


def test_class_in_digits() -> None:
    """Tables have text only, so digits are an index; not where they could be a word."""
    assert [class_of({"label": text}, LABELS, "f") for text in ("0", " 1 ")] == [0, 1]
    stars = (" 1", " 2", " 3")
    assert [class_of({"label": text}, stars, "f") for text in ("1", "2", "3")] == [0, 1, 2]
    digits = (" 0", " 1")
    assert [class_of({"label": text}, digits, "f") for text in ("0", "1")] == [0, 1]
    for text, labels in (("0", stars), ("2", LABELS), ("-1", LABELS), ("\u00b2", LABELS)):
        with pytest.raises(DataError, match="is none of"):
            class_of({"label": text}, labels, "f")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sentence": ""}, "no field 'label'; the row has 'sentence'"),
        ({"label": 2}, "label 2, expected 0 to 1 for 2 label words"),
        ({"label": -1}, "label -1, expected 0 to 1"),
        ({"label": True}, "field 'label' is true, expected 0 to 1 or a label word"),
        ({"label": 1.0}, r"is the number 1\.0, expected"),
        ({"label": None}, "is null"),
        ({"label": [1]}, "is an array"),
        ({"label": "Great"}, "label 'Great' is none of 'terrible', 'great'; see `labels`"),
        ({"label": 10**3000}, "label 1000000000.*, expected 0 to 1"),
    ],
)
def test_class_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"^f, line 7: .*{message}"):
        class_of(fields, LABELS, "f, line 7")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((" great",), "1 label word: classification needs two or more"),
        ((" great", " "), "label ' ' is empty"),
        ((" great", "great"), "labels ' great' and 'great' are the same word"),
    ],
)
def test_label_words_refused(tmp_path: Path, labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tmp_path, [{"s": "bad", "label": 0}], labels=labels)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    rows = [{"s": "bad", "label": 0}, {"s": 3, "label": 0}]
    with pytest.raises(
        DataError, match=r"f\.jsonl, line 2: field 's' is the number 3, expected a st"
    ):
        load(tmp_path, rows)
    with pytest.raises(DataError, match=r"f\.jsonl, line 1: the prompt is empty"):
        load(tmp_path, [{"s": "", "label": 0}], template="{s}")


def test_a_class_without_rows_is_reported(tmp_path: Path) -> None:
    got = load(tmp_path, [{"s": "bad", "label": 0}])
    assert [(w.name, w.message) for w in got.warnings] == [
        ("empty-classes", "no row has the label ' great'")
    ]


MASKED = masked_tokenizer()


def test_masked_model_is_scored_at_the_mask(tmp_path: Path) -> None:
    rows = [{"s": "the film", "label": 1}, {"s": "story " * 30, "label": 0}]
    got = load(tmp_path, rows, MASKED, template="{s} It was [MASK] .", max_seq=12)
    assert got.kind == "labels"
    assert [int(e.tokens[e.places[0]]) for e in got] == [4, 4]
    assert got.examples[1].tokens.size == 12
    assert [MASKED.token_text(tokens[0]) for tokens in got.label_tokens] == ["terrible", "great"]


@pytest.mark.parametrize(
    ("template", "labels", "error", "message"),
    [
        ("{s} It was", LABELS, DataError, r"has 0 times '\[MASK\]', expected once"),
        ("{s} [MASK] [MASK]", LABELS, DataError, "has 2 times"),
        ("{s} [MASK]", (" very bad", " good"), UsageError, "is 2 tokens and one mask takes one"),
        ("{s} [MASK]", (" wonderful", " good"), UsageError, "' wonderful' is unknown to the token"),
        ("{s} [MASK]", (), UsageError, "a masked-lm bundle learns label words only"),
    ],
)
def test_masked_model_refuses(
    tmp_path: Path, template: str, labels: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(tmp_path, [{"s": "bad", "label": 0}], MASKED, template=template, labels=labels)
