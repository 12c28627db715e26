"""Commands that take an adapter read rows, and generate answers, as its run did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.edgezo.conftest import Invoke, Tiny, write_rows

LABELS = ("--label", " w10", "--label", " w11")
TASK = ("--template", "{text} w4", *LABELS)


@pytest.fixture
def data(tiny: Tiny, tmp_path: Path) -> Path:
    """Rows without a task.json."""
    for name in ("train", "valid"):
        shutil.copy(tiny.data / f"{name}.jsonl", tmp_path / f"{name}.jsonl")
    return tmp_path


@pytest.fixture
def run(invoke: Invoke, tiny: Tiny, data: Path) -> Path:
    """A short run whose template and labels are options; its adapter acts on answers only."""
    steps = ("--steps", "3", "--batch-size", "8", "--first-order", "0", "--scope", "answer")
    rows = ("--data", data / "train.jsonl", "--valid", data / "valid.jsonl", "--max-seq", "32")
    invoke("tune", tiny.int8, "--budget", "8GB", *rows, *TASK, *steps, "-o", "run")
    return data / "run"


def scored(invoke: Invoke, tiny: Tiny, *args: object) -> dict[str, Any]:
    """The result of an evaluation of the validation rows."""
    done = invoke("eval", tiny.int8, "--data", "valid.jsonl", *args, "--json")
    result: dict[str, Any] = json.loads(done.stdout)
    assert all(text in done.stderr for text in result["warnings"]) or "`" in str(result["warnings"])
    return result


def test_eval_needs_nothing_that_the_run_knows(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    receipt = json.loads((run / "receipt.json").read_text())
    shutil.copy(run / "adapter.safetensors", "handed.safetensors")
    for adapter in (run, "handed.safetensors"):
        found = scored(invoke, tiny, "--adapter", adapter)
        assert (found["loss"], found["accuracy"]) == (
            receipt["loss_after"],
            receipt["accuracy_after"],
        )
        assert (found["template"], found["labels"]) == ("{text} w4", [" w10", " w11"])
        assert (found["max_seq"], found["scope"]) == (32, "answer")
        assert set(found["origins"].values()) == {"adapter"}
        assert found["warnings"] == []
    shown = invoke("eval", tiny.int8, "--data", "valid.jsonl", "--adapter", run).stdout
    assert "'{text} w4' (of the adapter)" in shown
    assert "' w10', ' w11' (of the adapter)" in shown
    assert "answers only" in shown


def test_what_is_given_otherwise_is_named(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    own = scored(invoke, tiny, "--adapter", run)
    swapped = scored(invoke, tiny, "--adapter", run, "--label", " w11", "--label", " w10")
    assert swapped["accuracy"] == pytest.approx(1 - own["accuracy"])
    (warning,) = swapped["warnings"]
    assert "the same words in another order are other classes" in warning
    origins = dict.fromkeys(("template", "max_seq", "train_on", "long"), "adapter")
    assert swapped["origins"] == origins | {"labels": "given"}
    several = ("--template", "{text} w5", "--max-seq", "16")
    told = invoke("eval", tiny.int8, "--data", "valid.jsonl", "--adapter", run, *several).stderr
    assert "--template was '{text} w4', is '{text} w5'; --max-seq was 32, is 16" in told
    assert scored(invoke, tiny, "--adapter", run, *TASK, "--max-seq", "32")["warnings"] == []


def test_rows_of_another_kind_say_whose_template_it_is(
    invoke: Invoke, tiny: Tiny, run: Path
) -> None:
    args = ("eval", tiny.int8, "--data", tiny.prompts, "--adapter", run)
    told = invoke(*args, code=5).stderr
    assert "no field 'text'" in told
    assert "that of the adapter, '{text} w4'; for other rows give --template" in told
    found = json.loads(invoke(*args, "--template", "none", "--json").stdout)
    assert (found["template"], found["labels"]) == (None, [])
    assert found["perplexity"] is not None


def test_the_adapter_goes_before_the_datas_task(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    task = {"template": "{text} w4", "labels": [" w11", " w10"]}
    Path("task.json").write_text(json.dumps(task))
    found = json.loads(invoke("eval", tiny.int8, "--data", ".", "--adapter", run, "--json").stdout)
    assert found["labels"] == [" w10", " w11"]
    (warning,) = found["warnings"]
    assert warning.startswith("`labels` of the data's task.json: not used")
    plain = json.loads(invoke("eval", tiny.int8, "--data", ".", "--json").stdout)
    assert (plain["labels"], plain["origins"]["labels"]) == ([" w11", " w10"], "data")


def test_an_adapter_of_an_earlier_version_has_the_settings_of_its_run(
    invoke: Invoke, tiny: Tiny, run: Path
) -> None:
    """Version 2 did not say how rows were read."""
    from edgezo_runtime.system.safetensors_reader import read_tensor_header, read_tensors
    from edgezo_runtime.system.safetensors_writer import write_tensors

    expected = scored(invoke, tiny, "--adapter", run)["loss"]
    file = run / "adapter.safetensors"
    header = read_tensor_header(file)
    info = json.loads(header.metadata["edgezo_adapter"]) | {"version": 2}
    del info["reading"], info["answers"]
    write_tensors(file, read_tensors(file, header), {"edgezo_adapter": json.dumps(info)})
    assert scored(invoke, tiny, "--adapter", run)["loss"] == expected


def test_a_replayed_adapter_says_the_same(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    """From bundle and journal alone."""
    shutil.copy(run / "journal.bin", "alone.bin")
    invoke("replay", tiny.int8, "alone.bin", "-o", "again.safetensors")
    assert Path("again.safetensors").read_bytes() == (run / "adapter.safetensors").read_bytes()


def test_an_exported_adapter_takes_its_prompts_along(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    done = json.loads(invoke("adapter", "export", run, "peft", "--json").stdout)
    assert (done["scope"], done["invocation"], done["invocation_text"]) == ("answer", [4], "w4")
    assert "from the last token 4, 'w4', of the prompt on" in done["acts_on"]
    assert "applies the adapter to every token" in done["elsewhere"]
    assert (done["template"], done["labels"]) == ("{text} w4", [" w10", " w11"])
    card = Path("peft/README.md").read_text()
    assert '"template": "{text} w4"' in card
    assert done["acts_on"] in card
    model = json.loads((tiny.int8 / "manifest.json").read_text())["model"]["id"]
    into = ("adapter", "import", "peft", tiny.int8, "-o", "in.safetensors", "--base-model", model)
    assert "'{text} w4'" in invoke(*into).stdout
    found = scored(invoke, tiny, "--adapter", "in.safetensors")
    assert found["loss"] == pytest.approx(scored(invoke, tiny, "--adapter", run)["loss"], rel=1e-6)


@pytest.mark.slow
def test_every_token_is_measured_with_the_proof(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    """As a program without activated LoRA scores: two evaluations of the same rows."""
    args = ("adapter", "export", run, "copy.safetensors", "--format", "safetensors", "--verify")
    found = json.loads(invoke(*args, "--json").stdout)["every_token"]
    own = json.loads(
        invoke("eval", tiny.int8, "--data", "train.jsonl", "--adapter", run, "--json").stdout
    )
    assert found["rows"] == own["rows"] == 40
    assert found["answer"] == {"loss": own["loss"], "accuracy": own["accuracy"]}
    assert found["all"]["loss"] != own["loss"]
    assert "in place of" in invoke(*args, "--force").stdout


def test_a_run_from_an_adapter_reads_rows_as_it_did(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    args = (tiny.int8, "--budget", "8GB", "--data", "train.jsonl", "--adapter", run)
    dry = json.loads(invoke("tune", *args, "--dry-run", "--json").stdout)["config"]
    assert (dry["template"], dry["label"], dry["max_seq"]) == ("{text} w4", [" w10", " w11"], 32)
    assert "scope answer" in invoke("plan", *args).stdout
    other = ("--label", " w11", "--label", " w10")
    told = invoke("tune", *args, *other, "--dry-run").output
    assert "the same words in another order" in told


@pytest.mark.slow
def test_a_repeated_command_may_leave_out_what_the_run_has(
    invoke: Invoke, tiny: Tiny, run: Path
) -> None:
    rows = ("--data", "train.jsonl", "--valid", "valid.jsonl")
    same = ("--batch-size", "8", "--first-order", "0", "--scope", "answer", "--steps", "4")
    args = ("tune", tiny.int8, "--budget", "8GB", *rows, *same, "-o", run)
    assert json.loads(invoke(*args, "--json").stdout)["steps"] == 4
    told = invoke(*args, "--template", "{text} w5", code=1).output
    assert "--template was '{text} w4', is '{text} w5'" in told


def answering_run(invoke: Invoke, tiny: Tiny) -> Path:
    """A run that scored generated answers."""
    rows = [{"q": f"w{20 + n}", "answers": [f"w{30 + n}"]} for n in range(8)]
    write_rows(Path("questions.jsonl"), rows)
    few = ("--steps", "1", "--batch-size", "4", "--max-new-tokens", "5", "--stop", "w50")
    rates = ("--method", "zo-sgd", "--lr", "0.01", "--eps", "0.5", "--objective", "f1")
    args = ("--data", "questions.jsonl", "--template", "{q} w5", *few, *rates)
    invoke("tune", tiny.int8, "--budget", "8GB", *args, "-o", "answers")
    return Path("answers")


def test_answers_are_generated_as_the_run_did(invoke: Invoke, tiny: Tiny) -> None:
    """It learned to stop after 5 tokens; by default there are 64."""
    run = answering_run(invoke, tiny)
    args = ("eval", tiny.int8, "--data", "questions.jsonl", "--adapter", run, "--answers")
    done = json.loads(invoke(*args, "--json").stdout)
    generation = done["generation"]
    assert (generation["max_new_tokens"], generation["stop"]) == (5, ["w50"])
    assert set(generation["origins"].values()) == {"adapter"}
    assert (done["template"], done["warnings"]) == ("{q} w5", [])
    other = invoke(*args, "--max-new-tokens", "3")
    assert "--max-new-tokens was 5, is 3" in other.stderr
    assert "--stop 'w50' (of the adapter)" in other.stdout
    texts = ("generate", tiny.int8, "--adapter", run, "--row", '{"q": "w20"}', "--json")
    made = json.loads(invoke(*texts).stdout)
    assert made["generation"]["max_new_tokens"] == 5
    assert made["template"] == "{q} w5"


def test_rows_become_prompts_by_the_template_of_the_run(
    invoke: Invoke, tiny: Tiny, run: Path
) -> None:
    args = ("generate", tiny.int8, "--adapter", run, "--max-new-tokens", "3", "--json")
    row = json.loads(invoke(*args, "--row", '{"text": "w20 w30"}').stdout)
    text = invoke(*args, "--prompt", "w20 w30 w4")
    assert row["texts"] == json.loads(text.stdout)["texts"]
    assert json.loads(text.stdout)["warnings"] == []
    (warning,) = json.loads(invoke(*args, "--prompt", "w20 w30").stdout)["warnings"]
    assert "of the template '{text} w4', and 1 of the prompts are not" in warning
    assert "--row" in invoke("generate", tiny.int8, code=2).stderr
    assert "no field 'text'" in invoke(*args, "--row", '{"q": "w20"}', code=5).stderr
    assert "expected an object" in invoke(*args, "--row", "3", code=5).stderr
    plain = ("generate", tiny.int8, "--row", '{"text": "w20"}')
    assert "give --template" in invoke(*plain, code=2).stderr
