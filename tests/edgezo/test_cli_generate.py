"""`edgezo generate`, and `edgezo eval` of choices and of answers that are written."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgezo.cli import main
from edgezo.cli.generate.command import GenerateSettings, _prompt, _Shown
from edgezo.cli.settings import known_bundle
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo_runtime.errors import InterruptedRunError
from edgezo_runtime.evaluation.squad import exact_match, f1
from tests.edgezo.conftest import Invoke, Tiny, tune_args, write_rows

GENERATED = {
    "bundle": str,
    "adapter": type(None),
    "scope": str,
    "generation": dict,
    "texts": list,
    "prompt_tokens": int,
    "new_tokens": int,
    "seconds": float,
    "tokens_per_s": float,
    "peak_bytes": int,
    "budget_bytes": int,
    "warnings": list,
}
FEW = ("--max-new-tokens", "8")


@pytest.fixture(scope="module")
def torch_model(tiny: Tiny) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny.model)


def greedy(model: torch.nn.Module, prompt: list[int], count: int) -> str:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
        )
    tokens = [token for token in whole[0, len(prompt) :].tolist() if token > 3]  # none special
    return " ".join(f"w{token}" for token in tokens)


def test_texts_are_those_of_transformers(invoke: Invoke, tiny: Tiny, torch_model) -> None:
    prompts = ("--prompt", "w20 w30 w40", "--prompt", "w9")
    args = ("generate", tiny.fp32, *prompts, *FEW)
    result = json.loads(invoke(*args, "--json").stdout)
    assert {key: type(value) for key, value in result.items()} == GENERATED
    found = [entry["text"].strip() for entry in result["texts"]]
    assert found == [greedy(torch_model, ids, 8) for ids in ([20, 30, 40], [9])]
    assert [entry["prompt_tokens"] for entry in result["texts"]] == [3, 1]
    assert result["peak_bytes"] > 0
    shown = invoke(*args).stdout.splitlines()
    assert [line.strip() for line in shown] == found


def test_a_single_text_is_streamed(invoke: Invoke, tiny: Tiny) -> None:
    args = ("generate", tiny.fp32, "--prompt", "w20 w30", *FEW)
    whole = json.loads(invoke(*args, "--json").stdout)["texts"][0]["text"]
    done = invoke(*args)
    assert done.stdout == whole + "\n"
    assert "tokens" in done.stderr


def test_stdin_is_a_prompt(invoke: Invoke, tiny: Tiny) -> None:
    args = ("generate", tiny.fp32, *FEW, "--json")
    expected = json.loads(invoke(*args, "--prompt", "w20 w30").stdout)["texts"]
    for given in ("w20 w30", "w20 w30\n"):
        found = CliRunner().invoke(main, [*map(str, args), "--prompt", "-"], input=given)
        assert json.loads(found.stdout)["texts"] == expected
    told = invoke(*args, "--prompt", "w20 \udcff", code=5).stderr
    assert "--prompt" in told
    assert "UTF-8" in told


def test_a_line_end_of_stdin_is_no_part_of_the_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Letters:
        def encode(self, text: str, *, add_special: bool) -> list[str]:
            return list(text)

        def writes_bos(self, text: str) -> bool:
            return False

    monkeypatch.setattr("sys.stdin", io.StringIO("ab\n\n"))
    found = _prompt("-", GenerateSettings(prompt=("-",)), Letters())  # type: ignore[arg-type]
    assert found == ["a", "b", "\n"]


def test_a_text_that_is_cut_off_ends_its_line(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(10**9))

    def check(self: StopSignals) -> None:
        if next(looks) > 24:
            raise InterruptedRunError("interrupted")

    args = ("generate", tiny.fp32, "--prompt", "w20 w30", "--threads", "1", "--max-new-tokens")
    whole = invoke(*args, 40).stdout
    monkeypatch.setattr(StopSignals, "check", check)
    cut = invoke(*args, 40, "--no-verify", code=130)
    assert cut.stdout.endswith("\n")
    assert cut.stdout[:-1]
    assert whole.startswith(cut.stdout[:-1])
    assert cut.stderr.endswith("interrupted\n")


def test_sampling_options_arrive(invoke: Invoke, tiny: Tiny) -> None:
    args = ("generate", tiny.fp32, "--prompt", "w20", *FEW, "--json")
    greedy_text = json.loads(invoke(*args).stdout)["texts"]
    assert (
        json.loads(invoke(*args, "--temperature", 2, "--top-k", 1).stdout)["texts"] == greedy_text
    )
    hot = [
        json.loads(invoke(*args, "--temperature", 2, "--top-p", 0.9, "--seed", seed).stdout)[
            "texts"
        ]
        for seed in (1, 1, 2)
    ]
    assert hot[0] == hot[1] != hot[2]
    first = greedy_text[0]["text"].split()[2]
    cut = json.loads(invoke(*args, "--stop", first).stdout)["texts"][0]
    assert cut["finish"] == "stop"
    assert first not in cut["text"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--max-new-tokens", "0"], 2, "--max-new-tokens"),
        (["--max-new-tokens", "64"], 2, "takes 64 in all"),
        (["--top-p", "0"], 2, "--top-p"),
        (["--system", "be brief"], 2, "--chat"),
        (["--chat"], 1, "chat template"),
        (["--budget", "1MB"], 3, "give --budget"),
        (["--adapter", "none"], 1, "none"),
    ],
)
def test_exit_codes(invoke: Invoke, tiny: Tiny, args: list[str], code: int, message: str) -> None:
    done = invoke("generate", tiny.fp32, "--prompt", "w20", *args, code=code)
    assert done.stdout == ""
    assert message in done.stderr


def test_an_older_bundle_says_export_again(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    import shutil

    old = tmp_path / "old"
    shutil.copytree(tiny.fp32, old)
    content = json.loads((old / "manifest.json").read_text())
    content["version"] = 3
    del content["graphs"]["logits"]
    (old / "manifest.json").write_text(json.dumps(content))
    assert "edgezo export" in invoke("generate", old, "--prompt", "w20", code=2).stderr
    invoke("eval", old, "--data", tiny.prompts)  # everything else goes on


def test_answers_are_scored_as_squad_does(
    invoke: Invoke, tiny: Tiny, torch_model, tmp_path: Path
) -> None:
    rows = []
    for number in range(6):
        answer = greedy(torch_model, [20 + number, 5], 3)
        words = answer.split()
        answers = [answer] if number % 2 else ["w99 w98", " ".join([*words[:1], "w96"])]
        rows.append({"question": f"w{20 + number}", "answers": answers})
    data = write_rows(tmp_path / "questions.jsonl", rows)
    args = ("eval", tiny.fp32, "--data", data, "--template", "{question} w5", "--answers")
    more = ("--max-new-tokens", "3", "--predictions", "p.jsonl", "--json")
    result = json.loads(invoke(*args, *more).stdout)
    written = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    texts = [greedy(torch_model, [20 + number, 5], 3) for number in range(6)]
    assert [line["prediction"] for line in written] == texts
    references = [row["answers"] for row in rows]
    pairs = list(zip(texts, references, strict=True))
    assert result["exact_match"] == np.mean([exact_match(*pair) for pair in pairs]) == 0.5
    assert result["f1"] == pytest.approx(np.mean([f1(*pair) for pair in pairs]))
    assert 0.5 < result["f1"] < 1
    assert "exact match" in invoke(*args, "--max-new-tokens", "3", "--budget", "2GB").stdout


def test_choices_are_scored_by_their_mean_log_probability(
    invoke: Invoke, tiny: Tiny, torch_model, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    rows, expected, losses = [], [], []
    for _ in range(12):
        question = generator.integers(20, 90, 4).tolist()
        choices = [
            generator.integers(20, 90, 1 + n).tolist() for n in range(generator.integers(2, 5))
        ]
        means = []
        for choice in choices:
            ids = torch.tensor([[*question, *choice]])
            with torch.inference_mode():
                scores = torch.log_softmax(torch_model(ids).logits[0], -1)
            at = torch.arange(len(question) - 1, ids.shape[1] - 1)
            means.append(scores[at, ids[0, 4:]].mean().item())
        label = int(generator.integers(len(choices)))
        expected.append(int(np.argmax(means)))
        losses.append(-means[label])
        words = [" ".join(f"w{token}" for token in choice) for choice in choices]
        row = {"q": " ".join(f"w{token}" for token in question), "options": words}
        rows.append(row | ({"label": label} if label else {"answer": words[0]}))
    data = write_rows(tmp_path / "choices.jsonl", rows)
    args = ("--data", data, "--template", "{q}", "--choices", "options", "--json")
    result = json.loads(invoke("eval", tiny.fp32, *args, "--predictions", "p.jsonl").stdout)
    chosen = [
        json.loads(line)["prediction"] for line in (tmp_path / "p.jsonl").read_text().splitlines()
    ]
    assert chosen == expected
    labels = [row.get("label", 0) for row in rows]
    assert result["accuracy"] == np.mean([a == b for a, b in zip(chosen, labels, strict=True)])
    assert result["loss"] == pytest.approx(np.mean(losses), abs=1e-4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": "w9"}, "no field 'options'"),
        ({"q": "w9", "options": ["w10"], "label": 0}, "an array of 1"),
        ({"q": "w9", "options": ["w10", ""], "label": 0}, "empty"),
        ({"q": "w9", "options": ["w10", 3], "label": 0}, "the number 3"),
        ({"q": "w9", "options": ["w10", "w11"], "label": 2}, "none of the 2 choices"),
        ({"q": "w9", "options": ["w10", "w11"], "label": True}, "none of the 2 choices"),
        ({"q": "w9", "options": ["w10", "w11"], "answer": "w12"}, "none of the 2 choices"),
        ({"q": "w9", "options": ["w10", "w11"]}, "no right choice"),
    ],
)
def test_rows_without_proper_choices_are_refused(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, row: dict[str, object], message: str
) -> None:
    data = write_rows(tmp_path / "choices.jsonl", [row])
    args = ("--data", data, "--template", "{q}", "--choices", "options")
    assert message in invoke("eval", tiny.fp32, *args, code=5).stderr


def test_predictions_of_nothing_are_refused_before_rows_are_scored(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgezo.cli.eval.tasks.evaluate", None)
    args = ("eval", tiny.fp32, "--data", tiny.prompts, "--predictions", "p.jsonl")
    assert "these rows have no predictions" in invoke(*args, code=2).stderr


def test_ways_to_score_exclude_each_other(invoke: Invoke, tiny: Tiny) -> None:
    args = ("eval", tiny.fp32, "--data", tiny.prompts, "--answers", "--choices", "x")
    assert "one of them" in invoke(*args, code=2).stderr
    args = ("eval", tiny.fp32, "--data", tiny.prompts, "--choices", "x")
    assert "--template" in invoke(*args, code=2).stderr


def test_perplexity_is_that_of_torch_over_all_tokens(
    invoke: Invoke, tiny: Tiny, torch_model, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)
    texts = [generator.integers(20, 90, size).tolist() for size in (4, 9, 20, 30)]
    rows = [{"text": " ".join(f"w{token}" for token in text)} for text in texts]
    data = write_rows(tmp_path / "texts.jsonl", rows)
    result = json.loads(invoke("eval", tiny.fp32, "--data", data, "--json").stdout)
    total, count, means = 0.0, 0, []
    for text in texts:
        ids = torch.tensor([[*text, 2]])
        with torch.inference_mode():
            loss = torch_model(ids, labels=ids).loss.item()
        total, count = total + loss * len(text), count + len(text)
        means.append(loss)
    assert result["perplexity"] == pytest.approx(np.exp(total / count), rel=1e-4)
    assert result["loss"] == pytest.approx(np.mean(means), rel=1e-4)
    assert np.exp(result["loss"]) != pytest.approx(result["perplexity"], rel=1e-4)


# --- progress, and the bundle that is meant ---


def test_texts_that_are_not_seen_to_grow_have_a_bar(invoke: Invoke, tiny: Tiny) -> None:
    """`edgezo generate --json` was silent until it was done."""
    one, two = ("--prompt", "w20"), ("--prompt", "w9")
    args = ("generate", tiny.int8, *FEW)
    assert "generating tokens 0/16\n" in invoke(*args, *one, *two).stderr
    assert "generating tokens 0/8\n" in invoke(*args, *one, "--json").stderr
    assert "generating" not in invoke(*args, *one).stderr
    assert invoke(*args, *one, *two, "--quiet").stderr == ""


def test_the_bar_counts_tokens_and_gives_way_to_texts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Recorded:
        def part(self, what: str, done: int, total: int) -> None:
            print(f"<{what} {done}/{total}>")

        def end(self) -> None:
            print("<end>")

    def text(number: int, tokens: int, finish: str | None) -> Any:
        stream = SimpleNamespace(text=f"text {number}")
        return SimpleNamespace(number=number, tokens=[0] * tokens, finish=finish, stream=stream)

    shown = _Shown(2, 8, cast(Any, Recorded()), printed=True)
    for own in (text(1, 3, "stop"), text(0, 2, None), text(0, 8, "length")):
        shown.take(own, "")
    assert capsys.readouterr().out.splitlines() == [
        "<generating tokens 0/16>", "<generating tokens 8/16>", "<generating tokens 10/16>",
        "<end>", "text 0", "text 1", "<generating tokens 16/16>",
    ]  # fmt: skip


def test_an_adapter_knows_its_bundle(invoke: Invoke, tiny: Tiny) -> None:
    """After `edgezo tune` without a bundle, nobody knew what to give `edgezo eval`."""
    invoke(*tune_args(tiny))
    rows = ("--data", tiny.data / "valid.jsonl")
    named = json.loads(invoke("eval", tiny.int8, *rows, "--adapter", "run", "--json").stdout)
    for adapter in ("run", "run/adapter.safetensors"):
        done = invoke("eval", *rows, "--adapter", adapter, "--json")
        assert json.loads(done.stdout)["loss"] == named["loss"]
        assert f"bundle of the run: {tiny.int8}" in done.stderr
    done = invoke("generate", "--adapter", "run", "--prompt", "w20", *FEW, "--json")
    assert json.loads(done.stdout)["bundle"] == str(tiny.int8)


def test_without_an_adapter_the_default_model_is_meant(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_bundle, "default_bundle", lambda: tiny.int8)
    done = invoke("generate", "--prompt", "w20", *FEW, "--json")
    assert json.loads(done.stdout)["bundle"] == str(tiny.int8)


def test_a_bundle_that_has_moved_is_asked_for(invoke: Invoke, tiny: Tiny) -> None:
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"bundle": "/gone"}))
    done = invoke("eval", "--data", tiny.data, "--adapter", "run", code=2)
    assert "run: its bundle is not at /gone any more; name it" in done.stderr
