"""`edgezo tune` hands out the best adapter, and says which one; `edgezo replay` makes the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgezo.cli.tune.evaluations import Evaluations
from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.journal.evaluation_record import EvaluationRecords
from tests.edgezo.conftest import Invoke, Tiny, tune_args, write_rows
from tests.edgezo.test_cli_tune import read_metrics

BEST = ("--keep", "best", "--eval-every", "auto", "--max-time", "0", "--json")

OVERFITTING = (
    "--epochs", "0", "--steps", "80", "--first-order-lr", "0.03", "--no-rollback", "--lr-schedule",
    "constant", *BEST,
)  # fmt: skip
"""Learns rows by heart whose classes mean nothing."""


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """Rows to tune on and few for validation, with classes that have nothing in common."""
    folder = tmp_path / "noisy"
    folder.mkdir()
    for split, count, shift in (("train", 24, 0), ("valid", 6, 1)):
        rows: list[dict[str, object]] = [
            {"text": f"w{20 + 3 * n % 50} w{30 + n % 9}", "label": (n * n // 3 + shift) % 2}
            for n in range(count)
        ]
        write_rows(folder / f"{split}.jsonl", rows)
    (folder / "task.json").write_text('{"template": "{text} w4", "labels": [" w10", " w11"]}')
    return folder


def overfit(invoke: Invoke, tiny: Tiny, noisy: Path, *more: object) -> dict[str, Any]:
    done = invoke(*tune_args(tiny, "--data", noisy, *OVERFITTING, *more))
    result: dict[str, Any] = json.loads(done.stdout)
    return {**result, "stderr": done.stderr}


def evaluations(run: Path) -> dict[int, float]:
    """Loss after the steps that metrics.jsonl has."""
    lines = [line for line in read_metrics(run) if line["event"] == "eval"]
    return {line["step"]: line["loss"] for line in lines if line["split"] == "valid"}


@pytest.mark.slow
def test_a_run_that_overfits_hands_out_an_earlier_step(
    invoke: Invoke, tiny: Tiny, noisy: Path, tmp_path: Path
) -> None:
    result = overfit(invoke, tiny, noisy)
    losses = evaluations(tmp_path / "run")
    assert [*losses] == [*range(0, 81, 10)]
    for step in range(10, 80, 10):
        assert f"after {step} steps, on 6 rows: loss {losses[step]:.4f}" in result["stderr"]
    initial = losses.pop(0)
    best = min(losses, key=losses.__getitem__)
    assert result["kept_step"] == best < 80 == result["steps"]
    assert result["loss_after"] == losses[best] < result["loss_last"] == losses[80]
    assert result["initial_is_best"] is (initial < losses[best])
    assert load_adapter(tmp_path / "run").info.steps == best
    assert read_metrics(tmp_path / "run")[-1]["kept_step"] == best
    # An independent evaluation of the file that was handed out.
    args = ("eval", tiny.int8, "--adapter", "run", "--data", noisy / "valid.jsonl", "--json")
    assert json.loads(invoke(*args).stdout)["loss"] == pytest.approx(losses[best], rel=1e-5)


@pytest.mark.slow
def test_a_replay_makes_the_adapter_that_was_handed_out(
    invoke: Invoke, tiny: Tiny, noisy: Path, tmp_path: Path
) -> None:
    result = overfit(invoke, tiny, noisy)
    kept = result["kept_step"]
    again = json.loads(invoke("replay", tiny.int8, "run", "-o", "again", "--json").stdout)
    assert (again["kept_step"], again["steps"]) == (kept, 80)
    assert again["adapter_sha256"] == result["adapter_sha256"]
    said = invoke("replay", tiny.int8, "run", "-o", "other").stdout
    assert f"step     {kept} of 80, the adapter that the run handed out" in said
    # The steps around it are others; no other evaluated step is better.
    for step in (kept - 1, 80):
        args = ("replay", tiny.int8, "run", "-o", f"s{step}", "--step", step, "--json")
        assert json.loads(invoke(*args).stdout)["adapter_sha256"] != result["adapter_sha256"]
    assert (
        "has 80 steps"
        in invoke("replay", tiny.int8, "run", "-o", "no", "--step", "81", code=2).stderr
    )
    shutil.copy(tmp_path / "run/journal.bin", tmp_path / "alone.bin")
    alone = json.loads(invoke("replay", tiny.int8, "alone.bin", "-o", "b", "--json").stdout)
    assert alone["kept_step"] == 80
    os.truncate(tmp_path / "run/journal.bin", (tmp_path / "run/journal.bin").stat().st_size // 9)
    short = invoke("replay", tiny.int8, "run", "-o", "c", "--json")
    assert "has lost step" in short.stderr
    assert json.loads(short.stdout)["kept_step"] == json.loads(short.stdout)["steps"]


@pytest.mark.slow
def test_the_last_one(invoke: Invoke, tiny: Tiny, noisy: Path, tmp_path: Path) -> None:
    result = overfit(invoke, tiny, noisy, "--keep", "last")
    assert result["kept_step"] == result["steps"] == 80
    assert result["loss_after"] == result["loss_last"]
    assert load_adapter(tmp_path / "run").info.steps == 80


class Killed(BaseException):
    """Ends a command like a kill does: nothing is written any more."""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before", "after", "between"])
@pytest.mark.parametrize("call", [2, 4, 8])
def test_a_run_that_is_killed_around_an_evaluation_hands_out_the_same(
    invoke: Invoke,
    tiny: Tiny,
    noisy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    call: int,
) -> None:
    """Before it, after it, or between the adapter and the record that names it."""
    whole = overfit(invoke, tiny, noisy, "-o", "whole")
    calls = 0

    def due() -> bool:
        nonlocal calls
        calls += 1
        return calls == call

    evaluate, write = Evaluations._evaluate, EvaluationRecords.write

    def killed(self: Evaluations, *args: Any) -> Any:
        if place == "before" and due():
            raise Killed
        found = evaluate(self, *args)
        if place == "after" and due():
            raise Killed
        return found

    def killed_write(*_: object) -> None:
        if due():
            raise Killed
        write(*_)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluations, "_evaluate", killed)
        if place == "between":
            patch.setattr(EvaluationRecords, "write", killed_write)
        with pytest.raises(Killed):
            overfit(invoke, tiny, noisy)
    result = json.loads(invoke("tune", "--resume", "-o", "run", "--json").stdout)
    assert result["adapter_sha256"] == whole["adapter_sha256"]
    assert result["kept_step"] == whole["kept_step"]
    assert result["loss_before"] == whole["loss_before"]
    assert result["loss_after"] == whole["loss_after"]


@pytest.mark.slow
def test_a_lost_adapter_is_told_and_rebuilt(
    invoke: Invoke, tiny: Tiny, noisy: Path, tmp_path: Path
) -> None:
    whole = overfit(invoke, tiny, noisy)
    (tmp_path / "run/best.safetensors").unlink()
    done = invoke("tune", "--resume", "-o", "run", "--json")
    assert f"step {whole['kept_step']} was rebuilt from the journal" in done.stderr
    assert json.loads(done.stdout)["adapter_sha256"] == whole["adapter_sha256"]


@pytest.mark.slow
def test_an_initial_adapter_that_is_best_is_told(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    """The rows for validation have the classes the other way round."""
    folder = tmp_path / "opposed"
    folder.mkdir()
    rows: list[dict[str, object]] = [
        {"text": f"w{20 + 40 * (n % 2) + n}", "label": n % 2} for n in range(24)
    ]
    write_rows(folder / "train.jsonl", rows)
    opposed = [{**row, "label": 1 - int(str(row["label"]))} for row in rows]
    write_rows(folder / "valid.jsonl", opposed)
    (folder / "task.json").write_text('{"template": "{text} w4", "labels": [" w10", " w11"]}')
    args = tune_args(tiny, "--data", folder, *OVERFITTING)
    done = invoke(*args)
    result = json.loads(done.stdout)
    assert result["initial_is_best"] is True
    assert result["kept_step"] > 0
    assert result["loss_before"] < result["loss_after"]
    (said,) = [text for text in result["warnings"] if "tuning did not help" in text]
    assert said in done.stderr
    (run,) = [line for line in read_metrics(tmp_path / "run") if line["event"] == "keep"]
    assert run["kept_step"] == result["kept_step"]


@pytest.mark.slow
def test_a_score_is_compared_by_its_value(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    rates = ("--lr", "0.03", "--eps", "0.01", "--first-order", "0", "--steps", "16")
    args = tune_args(tiny, *BEST, "--objective", "accuracy", *rates)
    result = json.loads(invoke(*args).stdout)
    lines = [line for line in read_metrics(tmp_path / "run") if line["event"] == "eval"]
    trained = [line for line in lines if line["step"]]
    best = min(trained, key=lambda line: (-line["accuracy"], line["loss"], line["step"]))
    assert result["kept_step"] == best["step"]
    assert result["accuracy_after"] == best["accuracy"]
