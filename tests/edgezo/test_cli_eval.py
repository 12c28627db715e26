"""`edgezo eval`, `edgezo adapter export`, `edgezo doctor`, the group itself."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgezo.cli import doctor, main
from edgezo.cli.terminal.progress import Progress
from edgezo_runtime.errors import EdgezoError, InterruptedRunError
from tests.edgezo.conftest import Invoke, Tiny, start

EVAL = {
    "bundle": str,
    "adapter": str,
    "data": str,
    "template": str,
    "labels": list,
    "max_seq": int,
    "train_on": str,
    "long": str,
    "origins": dict,
    "scope": str,
    "rows": int,
    "loss": float,
    "accuracy": float,
    "f1": float,
    "perplexity": type(None),
    "exact_match": type(None),
    "long_rows": dict,
    "peak_bytes": int,
    "device": str,
    "warnings": list,
    "seconds": float,
}


@pytest.fixture
def run(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> Path:
    """A short run."""
    args = ("--data", tiny.data, "--steps", "3", "--batch-size", "8", "-o", "run")
    invoke("tune", tiny.int8, "--budget", "8GB", *args)
    return tmp_path / "run"


def test_eval_gives_what_tune_gave(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    receipt = json.loads((run / "receipt.json").read_text())
    args = ("eval", tiny.int8, "--data", tiny.data, "--json")
    after = json.loads(invoke(*args, "--adapter", run).stdout)
    assert {key: type(value) for key, value in after.items()} == EVAL
    assert after["loss"] == receipt["loss_after"]
    assert after["accuracy"] == receipt["accuracy_after"]
    assert json.loads(invoke(*args).stdout)["loss"] == receipt["loss_before"]


def test_eval_takes_the_adapter_to_another_quantization(
    invoke: Invoke, tiny: Tiny, run: Path
) -> None:
    args = ("--data", tiny.data, "--adapter", run / "adapter.safetensors", "--json")
    int8 = json.loads(invoke("eval", tiny.int8, *args).stdout)
    fp32 = json.loads(invoke("eval", tiny.fp32, *args).stdout)
    assert fp32["loss"] == pytest.approx(int8["loss"], abs=0.1)
    assert int8["warnings"] == []
    (warning,) = fp32["warnings"]
    assert "the adapter was tuned otherwise: the bundle was another one" in warning


def test_eval_writes_predictions(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    args = ("--data", tiny.data, "--split", "train", "--limit", "9", "--json")
    result = json.loads(invoke("eval", tiny.fp32, *args, "--predictions", "p.jsonl").stdout)
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    lines = (tiny.data / "train.jsonl").read_text().splitlines()
    labels = [json.loads(line)["label"] for line in lines[:9]]
    assert [row["row"] for row in rows] == list(range(9))
    right = [row["prediction"] == label for row, label in zip(rows, labels, strict=True)]
    assert sum(right) / 9 == result["accuracy"]


def test_eval_of_completions_gives_perplexity(invoke: Invoke, tiny: Tiny) -> None:
    result = json.loads(invoke("eval", tiny.fp32, "--data", tiny.prompts, "--json").stdout)
    assert result["accuracy"] is None
    # every row has three scored tokens: two words and the end
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert "perplexity" in invoke("eval", tiny.fp32, "--data", tiny.prompts).stdout
    args = ("eval", tiny.fp32, "--data", tiny.prompts, "--predictions", "p")
    assert "--predictions" in invoke(*args, code=2).stderr


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--data", "none.jsonl"], 5),
        (["--adapter", "none"], 1),
        (["--adapter", "."], 1),
        (["--limit", "-1"], 2),
        (["--split", "dev"], 2),
    ],
)
def test_eval_exit_codes(invoke: Invoke, tiny: Tiny, args: list[str], code: int) -> None:
    done = invoke("eval", tiny.int8, "--data", tiny.data, *args, code=code)
    assert done.stdout == ""


@pytest.mark.slow
def test_export_verb(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    args = ("export", tiny.model, "-o", "out", "--rank", "3", "--targets", "o_proj, v_proj")
    result = json.loads(invoke(*args, "--quant", "fp32", "--json").stdout)
    assert result["targets"] == "o_proj,v_proj"
    assert result["trainable_parameters"] == 2 * 3 * (64 + 32)
    assert "--force" in invoke(*args, code=2).stderr
    assert "bundle" in invoke(*args, "--force").stdout
    assert invoke("export", "./no-model", "-o", "b", code=2).stdout == ""


def test_export_says_which_extra_is_missing(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgezo.cli.export.find_spec", lambda name: None)
    assert "pip install 'edgezo[export]'" in invoke("export", "m", "-o", "b", code=1).stderr


# --- adapter export ---


def test_adapter_export(invoke: Invoke, run: Path, tmp_path: Path) -> None:
    result = json.loads(invoke("adapter", "export", run, "peft", "--json").stdout)
    assert result["modules"] == 4
    assert {file.name for file in (tmp_path / "peft").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    invoke("adapter", "export", run, "copy.safetensors", "--format", "safetensors")
    same = (tmp_path / "copy.safetensors").read_bytes()
    assert same == (run / "adapter.safetensors").read_bytes()
    assert invoke("adapter", "export", "copy.safetensors", "peft", code=2).stdout == ""
    named = ("adapter", "export", "copy.safetensors", "peft", "--force", "--base-model", "org/x")
    invoke(*named)
    config = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/x"


def test_adapter_export_refuses_what_is_no_adapter(
    invoke: Invoke, run: Path, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    for source, output, code in (
        ("none", "out", 1),
        (tiny.int8, "out", 1),
        (tiny.int8 / "weights.safetensors", "out", 1),
        (tiny.int8 / "manifest.json", "out", 1),
    ):
        invoke("adapter", "export", source, output, code=code)
    assert (
        "of this format only"
        in invoke("adapter", "export", run, "folder", "--force", code=2).stderr
    )
    assert (tmp_path / "folder/notes.txt").exists()
    (run / "adapter.safetensors").unlink()
    assert "--resume" in invoke("adapter", "export", run, "out", code=1).stderr


# --- doctor ---


def test_doctor(invoke: Invoke) -> None:
    report = json.loads(invoke("doctor", "--json").stdout)
    assert report["problems"] == []
    assert report["cores"] >= 1
    assert report["available_bytes"] > 0
    assert "onnxruntime" in invoke("doctor").stdout


@pytest.mark.parametrize(
    ("flavours", "remedy"),
    [
        ({}, "pip install 'edgezo[cpu]'"),
        (
            {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"},
            "pip uninstall onnxruntime onnxruntime-gpu",
        ),
    ],
)
def test_doctor_finds_wrong_flavours(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, flavours: dict[str, str], remedy: str
) -> None:
    monkeypatch.setattr(doctor, "find_flavours", lambda: flavours)
    assert remedy in invoke("doctor", code=1).stdout


# --- the group ---


def test_interrupt_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "find_flavours", stop)
    assert CliRunner().invoke(main, ["doctor"]).exit_code == InterruptedRunError.exit_code


@pytest.mark.parametrize("error", [EdgezoError, *EdgezoError.__subclasses__()])
def test_every_error_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: type[EdgezoError]
) -> None:
    def fail() -> None:
        raise error("what, where, what next")

    monkeypatch.setattr(doctor, "find_flavours", fail)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == error.exit_code
    assert done.stderr == "error: what, where, what next\n"


def test_a_full_disk_is_an_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/journal.bin")

    monkeypatch.setattr(doctor, "find_flavours", fail)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    assert done.stderr == "error: run/journal.bin: No space left on device\n"


def test_unknown_verb() -> None:
    assert CliRunner().invoke(main, ["dance"]).exit_code == 2


def test_module_runs(tmp_path: Path) -> None:
    process = start("--version", cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=60)
    assert stdout.startswith("edgezo ")
    assert stderr == ""


# --- progress ---


class Screen:
    """A stream that is or is not a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.text = ""
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("terminal", "expected"),
    [(True, "\rlong text\rshort    \r     \r"), (False, "long text\nshort\n")],
)
def test_progress(terminal: bool, expected: str) -> None:
    now = 0.0
    screen = Screen(terminal)
    progress = Progress(screen, clock=lambda: now)  # type: ignore[arg-type]
    progress.update("long text")
    progress.update("too soon")
    now = 10.0
    progress.update("short")
    progress.end()
    assert screen.text == expected
