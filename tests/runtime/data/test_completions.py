"""Language modelling rows: what is read, what is scored, what is truncated."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.data.completions import ANSWER_FIELDS, answers_of, build_completions
from edgezo_runtime.data.example_set import Example, ExampleSet, TruncationReport
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.template import Template
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import BundleError, DataError, UsageError
from tests.runtime.tiny_tokenizer import (
    BOS,
    CHAT,
    byte_tokenizer,
    masked_tokenizer,
    write_rows,
)

PLAIN = byte_tokenizer(eos_ids=())
TOKENIZER = byte_tokenizer()
CHATTY = byte_tokenizer(chat_template=CHAT)


def load(
    path: Path, *rows: dict[str, Any], tokenizer: TextTokenizer = TOKENIZER, **options: Any
) -> ExampleSet:
    file = write_rows(path / "f.jsonl", rows)
    return load_examples(file, tokenizer, **({"max_seq": 64} | options))


def text(example: Example) -> str:
    return TOKENIZER.decode(example.tokens.tolist(), skip_special=False)


def scored(example: Example) -> str:
    return TOKENIZER.decode(example.tokens[example.places].tolist(), skip_special=False)


def test_prompt_and_completion_are_taken_as_they_are(tmp_path: Path) -> None:
    got = load(tmp_path, {"prompt": "the question", "completion": " answer"})
    assert got.kind == "completion"
    assert text(got.examples[0]) == "the question answer</s>"
    assert scored(got.examples[0]) == " answer</s>"
    assert got.examples[0].label == -1
    assert (got.label_words, got.label_tokens, got.report.class_counts) == ((), (), ())
    assert got.report.longest == got.report.tokens == 3


def test_no_end_token_no_end(tmp_path: Path) -> None:
    row = {"prompt": "the question", "completion": " answer"}
    assert scored(load(tmp_path, row, tokenizer=PLAIN).examples[0]) == " answer"


def test_end_token_is_not_doubled(tmp_path: Path) -> None:
    row = {"prompt": "the question", "completion": " answer</s>"}
    assert scored(load(tmp_path, row).examples[0]) == " answer</s>"


def test_merging_boundary_is_tokenized_apart(tmp_path: Path) -> None:
    rows = [{"prompt": f"{p} ", "completion": "answer"} for p in ("the", "question")]
    got = load(tmp_path, *rows)
    assert [scored(e) for e in got] == ["answer</s>"] * 2
    assert text(got.examples[0]) == "the answer</s>"
    assert [(w.name, w.count) for w in got.warnings] == [("completion-boundary", 2)]


def test_empty_prompt(tmp_path: Path) -> None:
    row = {"prompt": "", "completion": "the film"}
    assert scored(load(tmp_path, row).examples[0]) == " film</s>"  # nothing comes before "the"
    with_bos = load(tmp_path, row, tokenizer=byte_tokenizer(add_bos=True))
    assert with_bos.examples[0].tokens[0] == BOS
    assert scored(with_bos.examples[0]) == "the film</s>"


def test_instruction_without_a_chat_template(tmp_path: Path) -> None:
    got = load(
        tmp_path,
        {"instruction": "the question", "output": "answer"},
        {"instruction": "the question", "input": "story", "output": "answer"},
        {"instruction": "the question", "input": "", "output": "answer"},
    )
    assert [text(e) for e in got] == [
        "the question\nanswer</s>",
        "the question\n\nstory\nanswer</s>",
        "the question\nanswer</s>",
    ]
    assert {scored(e) for e in got} == {"answer</s>"}


def test_instruction_with_a_chat_template(tmp_path: Path) -> None:
    got = load(tmp_path, {"instruction": "question", "output": "answer"}, tokenizer=CHATTY)
    assert text(got.examples[0]) == "<user>question</s>\n<assistant>answer</s>"
    assert scored(got.examples[0]) == "answer</s>"


def test_messages_score_the_assistant(tmp_path: Path) -> None:
    turns = [("user", "question"), ("assistant", "answer"), ("user", "No"), ("assistant", "Yes")]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    got = load(tmp_path, row, tokenizer=CHATTY)
    assert text(got.examples[0]) == (
        "<user>question</s>\n<assistant>answer</s>\n<user>No</s>\n<assistant>Yes</s>"
    )
    assert scored(got.examples[0]) == "answer</s>Yes</s>"


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no chat template"):
        load(tmp_path, {"messages": [{"role": "assistant", "content": "x"}]})


def test_text_scores_all_but_the_first_token(tmp_path: Path) -> None:
    got = load(tmp_path, {"text": "the film It was"})
    assert scored(got.examples[0]) == " film It was</s>"


def test_template_finds_the_answer(tmp_path: Path) -> None:
    rows = [
        {"q": "the question", "answers": ["great", "good"]},
        {"q": "the question", "answer": " great"},
        {"q": "the question", "completion": "great", "answers": []},
        {"q": "the question", "output": "great"},
    ]
    got = load(tmp_path, *rows, template="{q} It was")
    assert {text(e) for e in got} == {"the question It was great</s>"}
    assert {scored(e) for e in got} == {" great</s>"}


def test_a_pair_loses_the_middle_of_its_prompt_and_then_its_end(tmp_path: Path) -> None:
    row = {"prompt": "the film" + " story" * 20 + " question", "completion": " answer" * 10}
    assert len(load(tmp_path, row).examples[0].tokens) == 23 + 10 + 1
    wide = load(tmp_path, row, max_seq=20)
    assert text(wide.examples[0]) == (
        "the film story story story story story story story question" + " answer" * 10 + "</s>"
    )
    assert wide.report.longest == 20
    lost = wide.report.truncation
    assert (lost.prompt_tokens, lost.completion_tokens) == (13, 0)
    assert (lost.rows, lost.prompt_rows, lost.completion_rows) == (1, 1, 0)
    tight = load(tmp_path, row, max_seq=8)
    assert text(tight.examples[0]) == "the film story question" + " answer" * 5  # no false end
    lost = tight.report.truncation
    assert (lost.prompt_tokens, lost.completion_tokens) == (19, 6)
    assert (lost.rows, lost.prompt_rows, lost.completion_rows) == (1, 1, 1)
    assert tight.report.longest == 8
    assert tight.warnings[0].name == "truncated"


def test_a_short_prompt_stays_whole_beside_a_long_answer(tmp_path: Path) -> None:
    row = {"prompt": "the question", "completion": " answer" * 40}
    got = load(tmp_path, row, max_seq=12)
    assert text(got.examples[0]) == "the question" + " answer" * 11
    lost = got.report.truncation
    assert (lost.prompt_rows, lost.completion_rows, lost.completion_tokens) == (0, 1, 30)


def test_bos_survives_truncation(tmp_path: Path) -> None:
    row = {"prompt": "story " * 20 + "question", "completion": " answer"}
    got = load(tmp_path, row, tokenizer=byte_tokenizer(add_bos=True), max_seq=4)
    assert text(got.examples[0]) == "<s>story question answer</s>"


def test_templated_prompt_keeps_its_template(tmp_path: Path) -> None:
    row = {"c": "story " * 20, "q": "question", "answers": ["answer"]}
    got = load(tmp_path, row, template="the {c}\n{q} It was", max_seq=12)
    assert got.report.longest <= 12
    assert text(got.examples[0]).startswith("the story story")
    assert text(got.examples[0]).endswith("\nquestion It was answer</s>")
    assert got.report.truncation.rows == 1
    # the answer alone does not leave room for the template: it loses its end
    tight = load(
        tmp_path, row | {"answers": ["answer " * 9]}, template="the {c}\n{q} It was", max_seq=8
    )
    assert text(tight.examples[0]) == "the story story\nquestion It was answer answer"
    with pytest.raises(DataError, match=r"line 1: the template alone has 5 tokens and at most 3"):
        load(tmp_path, row, template="the {c}\n{q} It was", max_seq=3)


def test_text_loses_its_end(tmp_path: Path) -> None:
    got = load(tmp_path, {"text": "the film" + " story" * 20}, max_seq=4)
    assert text(got.examples[0]) == "the film" + " story" * 3
    assert (got.report.truncation.prompt_tokens, got.report.truncation.completion_tokens) == (0, 18)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": " "}, "field 'completion' is empty; fill it or remove"),
        ({"prompt": 1, "completion": "a"}, "field 'prompt' is the number 1, expected a string"),
        ({"prompt": "a"}, "no field 'completion'; the row has 'prompt'"),
        ({"completion": "a"}, "no field 'prompt'"),
        ({"instruction": "a", "output": None}, "field 'output' is null; the row has"),
        ({"prompt": "a", "completion": "\ud83d"}, "half of a surrogate pair"),
    ],
)
def test_bad_rows(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"f\.jsonl, line 2: .*{message}"):
        load(tmp_path, {"prompt": "a", "completion": "b"}, row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"q": "a"},
            "expected one of completion, output, response, answer, answers; or give one word per",
        ),
        ({"q": "a", "answers": []}, "field 'answers' is an empty array"),
        ({"q": "a", "answers": [3]}, "field 'answers' is the number 3"),
        ({"q": "a", "answer": ""}, "field 'answer' is empty"),
    ],
)
def test_bad_answers(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"f\.jsonl, line 1: .*{message}"):
        load(tmp_path, row, template="{q}")


def test_nothing_to_predict(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: nothing to predict, the row has 1 tokens"):
        load(tmp_path, {"text": "the"}, tokenizer=PLAIN)
    with pytest.raises(DataError, match="field 'text' is empty"):
        load(tmp_path, {"text": ""})


def test_unused_label_is_reported(tmp_path: Path) -> None:
    got = load(tmp_path, {"text": "the film", "label": 1}, {"text": "the film", "label": 0})
    assert [(w.name, w.count) for w in got.warnings] == [("unused-label", 2)]


# --- the builder itself ---


def numbered_rows(*rows: dict[str, Any]) -> list[Row]:
    return [Row(row, line, f"f, line {line}") for line, row in enumerate(rows, 1)]


def test_every_row_is_read_by_its_own_fields() -> None:
    """A table of several kinds has nulls in the columns of the other kinds."""
    rows = numbered_rows(
        {"text": "the film", "prompt": None, "completion": None},
        {"prompt": "the", "completion": " film", "text": None},
        {"text": "the question"},
    )
    found = build_completions(rows, TOKENIZER, None, 64)
    assert [scored(e) for e in found.examples] == [" film</s>", " film</s>", " question</s>"]
    assert [(w.name, w.count) for w in found.warnings] == [("mixed-kinds", 3)]
    assert found.warnings[0].message.endswith("own fields: 2 with 'text', 1 with 'prompt'")
    alone = build_completions(rows[1:2], TOKENIZER, None, 64)
    assert [(e.example_id, e.line) for e in alone.examples] == [(0, 2)]
    assert alone.truncation == TruncationReport()
    assert alone.warnings == ()


def test_null_is_not_absent() -> None:
    null, absent = numbered_rows({"prompt": "the", "completion": None}, {"prompt": "the"})
    with pytest.raises(
        DataError, match=r"'completion' is null; the row has 'prompt', 'completion' \(null\)"
    ):
        build_completions([null], TOKENIZER, None, 64)
    with pytest.raises(
        DataError, match="no field 'completion'; the row has 'prompt', expected one of"
    ):
        build_completions([absent], TOKENIZER, None, 64)
    assert answers_of({"completion": None, "answer": "film"}, "f") == ("film",)
    with pytest.raises(DataError, match="field 'output' is null, expected a string"):
        answers_of({"output": None, "answer": None}, "f")


@pytest.mark.parametrize(
    ("row", "unused"),
    [
        ({"text": "the film", "history": [["a", "b"]]}, "history"),
        ({"prompt": "the", "completion": " film", "tools": "[]x", "input": ""}, "tools"),
        ({"text": "the film", "output": "the"}, "output"),
        ({"text": "the film", "system": "the", "tools": None}, "system"),
        ({"instruction": "the", "output": "film", "history": [["a", "b"]]}, "history"),
    ],
)
def test_a_known_field_that_is_not_used_is_told(row: dict[str, Any], unused: str) -> None:
    found = build_completions(numbered_rows(row, row), TOKENIZER, None, 64)
    assert [(w.name, w.count) for w in found.warnings if w.name == "unused-field"] == [
        ("unused-field", 2)
    ]
    assert f"2 rows have a field '{unused}', which" in found.warnings[0].message


def test_messages_beside_a_template_are_told() -> None:
    row = {"question": "the", "answer": "film", "messages": [{"role": "user", "content": "x"}]}
    found = build_completions(numbered_rows(row), TOKENIZER, Template.parse("{question}"), 64)
    assert [w.name for w in found.warnings] == ["unused-field"]
    assert "which the template does not use" in found.warnings[0].message


def test_rows_are_read_one_by_one() -> None:
    """A file of any length takes no more memory than its examples."""
    seen: list[int] = []

    def rows() -> Iterator[Row]:
        for row in numbered_rows(*[{"text": "the film"}] * 3):
            seen.append(row.line)
            yield row

    assert len(build_completions(rows(), TOKENIZER, None, 64).examples) == 3
    assert seen == [1, 2, 3]
    assert build_completions([], TOKENIZER, None, 64).examples == ()


def test_masked_models_learn_no_completions() -> None:
    with pytest.raises(UsageError, match="label words only; give `template` and `labels`"):
        build_completions([], masked_tokenizer(), None, 64)


@pytest.mark.parametrize("name", ANSWER_FIELDS)
def test_answers_of_a_row(name: str) -> None:
    assert answers_of({"q": "x", name: " good "}, "f, line 1") == (" good ",)
    assert answers_of({"q": "x", name: ["a", "b"]}, "f, line 1") == ("a", "b")
    first, *others = ANSWER_FIELDS
    assert answers_of({first: "a", **dict.fromkeys(others, "b")}, "f, line 1") == ("a",)


def test_long_rows_may_be_left_out(tmp_path: Path) -> None:
    rows = [
        {"prompt": "the film", "completion": " great"},
        {"prompt": "the" + " story" * 30, "completion": " bad"},
        {"prompt": "the music", "completion": " good"},
    ]
    got = load(tmp_path, *rows, max_seq=8, long="drop")
    assert [(e.example_id, e.line) for e in got] == [(0, 1), (1, 3)]
    assert got.report.truncation == TruncationReport(dropped_rows=1)
    assert [(w.name, w.count) for w in got.warnings] == [("dropped", 1)]
    with pytest.raises(DataError, match=r"all 1 rows are longer than 8 tokens.*`long` to truncate"):
        load(tmp_path, rows[1], max_seq=8, long="drop")


@pytest.mark.parametrize(
    "row",
    [
        {"text": "<s>the film"},
        {"prompt": "<s>the", "completion": " film"},
        {"prompt": "", "completion": "<s>the film"},
    ],
)
def test_a_text_has_one_bos(tmp_path: Path, row: dict[str, str]) -> None:
    starting = byte_tokenizer(add_bos=True)
    without = {name: text.removeprefix("<s>") for name, text in row.items()}
    got = load(tmp_path, row, row, tokenizer=starting)
    assert got.examples[0].tokens.tolist() == (
        load(tmp_path, without, tokenizer=starting).examples[0].tokens.tolist()
    )
    assert [(w.name, w.count) for w in got.warnings] == [("double-bos", 2)]
    assert "'<s>'" in got.warnings[0].message
    assert load(tmp_path, row).warnings == ()  # this tokenizer puts none before a text


def test_prompts_of_templates_have_one_bos(tmp_path: Path) -> None:
    starting = byte_tokenizer(add_bos=True)
    for labels in ((), (" bad", " good")):
        row = {"q": "film", "answer": "good", "label": 1}
        got = load(tmp_path, row, tokenizer=starting, template="<s>{q} is", labels=labels)
        assert got.examples[0].tokens.tolist().count(BOS) == 1
        assert ("double-bos", 1) in [(w.name, w.count) for w in got.warnings]


def test_a_masked_model_gets_one_first_token() -> None:
    tokenizer = masked_tokenizer()
    plain = tokenizer.encode("the film [MASK]", add_special=True)
    assert tokenizer.encode("[CLS] the film [MASK]", add_special=True) == plain
    assert tokenizer.writes_bos("[CLS] the film")
