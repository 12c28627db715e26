"""`edgezo init` and `edgezo data check`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgezo.cli import main
from edgezo.cli.init.questions import Questions, quoted, unquoted
from edgezo_runtime.errors import UsageError
from tests.edgezo.conftest import Invoke, Tiny, write_rows


def test_the_file_is_one_that_tune_reads(tiny: Tiny, invoke: Invoke) -> None:
    result = invoke("init", tiny.int8, "--data", tiny.data, "--budget", "8GB", "--yes")
    text = Path("edgezo.toml").read_text()
    found = tomllib.loads(text)
    assert found == {
        "bundle": str(tiny.int8), "data": [str(tiny.data)], "template": "{text} w4",
        "label": [" w10", " w11"], "max_seq": 32, "budget": "8GB",
    }  # fmt: skip
    assert "# 40 train, 12 valid rows" in text
    assert "edgezo tune --config edgezo.toml -o run" in result.stdout
    assert "smallest sufficient budget" in result.stdout
    planned = invoke("plan", "--config", "edgezo.toml", "--json")  # it refused 'bundle'
    assert json.loads(planned.stdout)["resident_blocks"] == 2
    invoke("tune", "--config", "edgezo.toml", "-o", "run", "--steps", "1", "--threads", "1")
    assert (Path("run") / "receipt.json").is_file()


def test_rows_to_write_need_no_template(tiny: Tiny, invoke: Invoke) -> None:
    result = invoke("init", tiny.int8, "--data", tiny.prompts, "--json", "-o", "a.toml")
    found = json.loads(result.stdout)
    assert found["data"]["task"] == "writing"
    assert "template" not in tomllib.loads(Path("a.toml").read_text())
    assert found["settings"]["max_seq"] == 32


def test_rows_with_an_answer_get_a_template(tiny: Tiny, invoke: Invoke) -> None:
    rows = [
        {
            "id": f"n{n}",
            "context": f"w{n}",
            "question": f"w{n + 9} w2",
            "kind": "w1",
            "answers": ["w3"],
        }
        for n in range(30)
    ]
    path = write_rows(Path("rows.jsonl"), rows)
    assert "the answer is in 'answers'" in invoke("data", "check", path).output
    found = json.loads(invoke("init", tiny.int8, "--data", path, "--json").stdout)
    assert found["settings"]["template"] == "{context}\n{question}\n"
    assert "label" not in found["settings"]


def test_nobody_answers(tiny: Tiny, invoke: Invoke) -> None:
    assert "give --data" in invoke("init", tiny.int8, "--yes", code=2).output
    rows = write_rows(Path("rows.jsonl"), [{"a": "x", "b": "y"}] * 3)
    assert "give --template" in invoke("init", tiny.int8, "--data", rows, "--yes", code=2).output
    Path("edgezo.toml").touch()
    args = ("init", tiny.int8, "--data", tiny.data, "--yes")
    assert "--force" in invoke(*args, code=2).output
    assert ".toml" in invoke(*args, "-o", "a.json", code=2).output


def test_without_a_bundle_it_is_that_of_the_default_model(
    tiny: Tiny, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgezo.cli.init.work.default_bundle", lambda: tiny.fp32)
    found = json.loads(invoke("init", "--data", tiny.data, "--json").stdout)
    assert found["settings"]["bundle"] == str(tiny.fp32)
    Path("own").symlink_to(tiny.int8)
    found = json.loads(invoke("init", "--data", tiny.data, "--json", "--force").stdout)
    assert found["settings"]["bundle"] == str(tiny.int8)  # the only one in this folder


def test_five_questions(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgezo.cli.init.questions.Questions.__init__", _asking)
    answers = [str(tiny.int8), str(tiny.data), "", "w10,w11", "2GB"]
    result = CliRunner().invoke(main, ["init", "--no-plan"], input="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    found = tomllib.loads(Path("edgezo.toml").read_text())
    assert (found["template"], found["label"], found["budget"]) == (
        "{text} w4", ["w10", "w11"], "2GB",
    )  # fmt: skip


def _asking(self: Questions, ask: bool) -> None:
    object.__setattr__(self, "ask", True)


def test_spaces_of_answers_can_be_seen() -> None:
    assert quoted(" terrible, great\n") == '" terrible, great\\n"'
    assert unquoted('" terrible\\n"') == " terrible\n"
    assert unquoted("great") == "great"
    assert Questions(False).text("?", None, "x", "--y") == "x"
    with pytest.raises(UsageError, match="give --y"):
        Questions(False).text("?", None, None, "--y")


def test_data_check(tiny: Tiny, invoke: Invoke) -> None:
    told = invoke("data", "check", tiny.data).stdout
    assert "40 train, 12 valid rows" in told
    assert "classes: 0" in told
    result = invoke("data", "check", tiny.data, "--bundle", tiny.int8, "--max-seq", 4, "--json")
    found = json.loads(result.stdout)
    assert found["template"] == "{text} w4"
    assert {"cut", "lengths", "classes"} <= {own["name"] for own in found["findings"]}
    missing = invoke("data", "check", "none.jsonl", code=5)
    assert "no such file" in missing.output


def test_label_words_are_scored(tiny: Tiny, invoke: Invoke) -> None:
    rows = [{"text": f"w{20 + n} w{30 + n} w21 w22 w23", "label": f"w{10 + n % 2}"}
            for n in range(12)]  # fmt: skip
    path = write_rows(Path("rows.jsonl"), rows)
    found = json.loads(
        invoke("data", "check", path, "--bundle", tiny.int8, "--json", "--budget", "8GB").stdout
    )
    margins = [own["margin"] for own in found["proposals"]]
    assert margins == sorted(margins, reverse=True)
    assert len(margins) > 1
    assert found["template"] == found["proposals"][0]["template"]
    assert found["labels"] == [" w10", " w11"]


def test_label_words_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is the proposal keeps its texts; one of another number is refused."""
    own, answers = (" yes, well", " no"), ['" yes, well, no"', '" a, b"', '" a"']
    monkeypatch.setattr("click.prompt", lambda *_, **__: answers.pop(0))
    questions = Questions(ask=True)
    assert questions.texts("Words", (), own) == list(own)
    assert questions.texts("Words", (), own) == [" a", " b"]
    with pytest.raises(UsageError, match="Words: 1 texts, expected 2"):
        questions.texts("Words", (), own)


def test_the_next_command_is_quoted(tiny: Tiny, invoke: Invoke) -> None:
    args = ("init", tiny.int8, "--data", tiny.prompts, "--json")
    found = json.loads(invoke(*args, "-o", "my settings.toml").stdout)
    assert found["next"] == "edgezo tune --config 'my settings.toml' -o run"
