"""`edgezo tune` on a tiny model: what it writes and says, how it stops and goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.budget.plan import Plan, make_plan
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.system.memory_guard import MemoryGuard
from edgezo_runtime.training.run import Run
from tests.edgezo.conftest import Invoke, Tiny, start, tune_args, wait_for_steps, write_rows

RESULT = {
    "status": str,
    "ended_by": str,
    "run": str,
    "model": str,
    "steps": int,
    "steps_planned": int,
    "max_time_s": type(None),
    "seconds": float,
    "rows_per_s": float,
    "loss_before": float,
    "loss_after": float,
    "loss_test": float,
    "accuracy_before": float,
    "accuracy_after": float,
    "accuracy_test": float,
    "peak_bytes": int,
    "budget_bytes": int,
    "scope": str,
    "reliefs": list,
    "streamed_blocks": int,
    "predicted_bytes": int,
    "plan": dict,
    "workers": int,
    "device": str,
    "chunk_tokens": int,
    "adapter": str,
    "adapter_sha256": str,
    "warnings": list,
    "created_by": str,
    "method": str,
    "estimated_blocks": list,
    "objective": str,
    "first_order_blocks": list,
    "batch_size": int,
    "lr": float,
    "eps": float,
    "first_order_lr": float,
    "rates": str,
    "long_rows": dict,
    "rows": int,
    "held_out": int,
    "keep": str,
    "kept_step": int,
    "initial_is_best": bool,
    "loss_last": float,
    "events": list,
}

RATES = ("--lr", "0.01", "--eps", "0.01")
"""In place of measuring them."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_result_and_files(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    hybrid = ("--first-order", "1", "--blocks", "all")
    done = invoke(*tune_args(tiny, "--test", tiny.data / "valid.jsonl", "--json", *hybrid))
    result = json.loads(done.stdout)
    assert {key: type(value) for key, value in result.items()} == RESULT
    assert result["status"] == "done"
    assert result["steps"] == 4
    assert result["loss_test"] == result["loss_after"]
    assert 0 < result["peak_bytes"] < result["budget_bytes"] == 8 * 10**9
    run = tmp_path / "run"
    assert json.loads((run / "receipt.json").read_text()) == result
    digest = hashlib.sha256((run / "adapter.safetensors").read_bytes()).hexdigest()
    assert digest == result["adapter_sha256"]
    config = json.loads((run / "config.json").read_text())
    assert config["label"] == [" w10", " w11"]
    assert config["steps"] == 4
    lines = read_metrics(run)
    assert [line["event"] for line in lines] == ["eval", *["step"] * 4, "eval", "eval", "keep"]
    assert [line["step"] for line in lines] == [0, 0, 1, 2, 3, 4, 4, 4]
    assert lines[-1]["kept_step"] == 4
    assert "evaluating" in done.stderr
    assert "step 1 " in done.stderr
    assert "rows/s" in done.stderr


@pytest.mark.parametrize(
    ("args", "blocks"), [((), ([], [0, 1])), (("--first-order", "0"), ([0, 1], []))], ids=str
)
def test_what_auto_takes(
    invoke: Invoke, tiny: Tiny, args: tuple[str, ...], blocks: tuple[list[int], list[int]]
) -> None:
    done = invoke(*tune_args(tiny, "--json", *args))
    result = json.loads(done.stdout)
    assert (result["estimated_blocks"], result["first_order_blocks"]) == blocks
    assert (result["lr"] is None) == (result["first_order_lr"] is not None) == (not args)
    assert ("first-order steps of the last 2 blocks" in done.stderr) == (not args)


def test_human_result(invoke: Invoke, tiny: Tiny) -> None:
    done = invoke(*tune_args(tiny))
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["run", "accuracy", "loss", "steps", "memory", "adapter"]


def test_prompt_and_completion(invoke: Invoke, tiny: Tiny) -> None:
    args = tune_args(tiny, "--data", tiny.prompts, "--valid", tiny.prompts, "--json")
    result = json.loads(invoke(*args).stdout)
    assert result["accuracy_after"] is None
    assert result["loss_after"] > 0


def test_without_valid_rows_there_is_a_warning(invoke: Invoke, tiny: Tiny) -> None:
    done = invoke(*tune_args(tiny, "--data", tiny.prompts, "--json"))
    assert "--valid" in done.stderr
    assert json.loads(done.stdout)["loss_before"] is None


def test_default_folder(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    args = [arg for arg in tune_args(tiny) if arg not in ("-o", "run")]
    invoke(*args)
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("tiny.int8-")


@pytest.mark.slow
def test_same_seed_same_adapter(invoke: Invoke, tiny: Tiny) -> None:
    one = json.loads(invoke(*tune_args(tiny, "--json", "-o", "one")).stdout)
    two = json.loads(invoke(*tune_args(tiny, "--json", "-o", "two")).stdout)
    other = json.loads(invoke(*tune_args(tiny, "--json", "-o", "c", "--seed", "1")).stdout)
    assert one["adapter_sha256"] == two["adapter_sha256"] != other["adapter_sha256"]


def test_dry_run_writes_nothing(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    result = json.loads(invoke(*tune_args(tiny, "--dry-run", "--json")).stdout)
    assert result["rows"] == {"train": 40, "valid": 12}
    parts = result["ledger"]
    assert sum(parts.values()) >= result["budget_bytes"] - result["start_peak_bytes"]
    assert result["predicted_bytes"] + parts["reserve"] == result["budget_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_the_saved_config_starts_the_same_run(invoke: Invoke, tiny: Tiny) -> None:
    one = json.loads(invoke(*tune_args(tiny, "--json")).stdout)
    args = ("tune", "--config", "run/config.json", "-o", "again", "--json")
    assert json.loads(invoke(*args).stdout)["adapter_sha256"] == one["adapter_sha256"]


# --- budget ---


@pytest.mark.slow
def test_a_run_short_of_memory_stops_and_goes_on(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = json.loads(invoke(*tune_args(tiny, *RATES, "--json", "-o", "whole")).stdout)
    looks = iter([0] * 30)  # enough memory at first, then never
    guard = MemoryGuard(2**20, resident=lambda: next(looks, 2**30))

    def watched(run: Run, **options: Any) -> Plan:
        made = make_plan(run, **options)
        run.engine.guard = guard
        return made

    with monkeypatch.context() as patch:
        patch.setattr("edgezo_runtime.app.open_run.make_plan", watched)
        done = invoke(*tune_args(tiny, *RATES), code=4)
    assert "streaming all" in done.stderr
    assert "is saved in run" in done.stderr
    receipt = json.loads((tmp_path / "run/receipt.json").read_text())
    assert receipt["status"] == "out-of-memory"
    assert 0 < receipt["steps"] < 4
    assert receipt["reliefs"]
    assert "pressure" in {line["event"] for line in read_metrics(tmp_path / "run")}
    again = json.loads(invoke("tune", "--resume", "-o", "run", "--json").stdout)
    assert again["adapter_sha256"] == whole["adapter_sha256"]


def test_a_plainly_small_budget_is_refused(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    done = invoke(*tune_args(tiny, "--budget", "10MB"), code=3)
    assert "give --budget '" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_named_budget_is_enough(invoke: Invoke, tiny: Tiny) -> None:
    refused = invoke(*tune_args(tiny, "--budget", "10MB"), code=3)
    named = refused.stderr.split("give --budget '")[1].split("'")[0]
    plan = json.loads(invoke(*tune_args(tiny, "--budget", named, "--dry-run", "--json")).stdout)
    assert plan["budget_bytes"] >= plan["predicted_bytes"]


def test_a_peak_above_the_budget_is_on_the_receipt(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgezo.cli.tune.session.peak_rss_bytes", lambda: 9 * 10**9)
    result = json.loads(invoke(*tune_args(tiny, "--json")).stdout)
    assert any("9.00 GB was above the budget" in text for text in result["warnings"])


# --- stopping and going on ---


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    settings = ("--lr-schedule", "constant", "--json")
    whole = json.loads(invoke(*tune_args(tiny, *settings, "-o", "whole", "--steps", "7")).stdout)
    invoke(*tune_args(tiny, *settings, "--steps", "3"))
    again = ("tune", "--resume", "-o", "run", "--steps", "7", "--budget", "7GB", "--json")
    result = json.loads(invoke(*again).stdout)
    assert result["adapter_sha256"] == whole["adapter_sha256"]
    assert result["loss_before"] == whole["loss_before"]
    assert result["budget_bytes"] == 7 * 10**9
    steps = [line["step"] for line in read_metrics(tmp_path / "run") if line["event"] == "step"]
    assert steps == list(range(7))


@pytest.mark.slow
def test_metrics_ahead_of_the_journal_are_dropped(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    invoke(*tune_args(tiny))
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "step": 4}\n{"event": "step", "st')
    invoke("tune", "--resume", "-o", "run", "--steps", "6")
    steps = [line["step"] for line in read_metrics(tmp_path / "run") if line["event"] == "step"]
    assert steps == list(range(6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (["--seed", "1"], 1),
        (["--label", " w12", "--label", " w13", "--template", "{text}"], 1),
        (["--max-seq", "3"], 1),
        (["--lr", "0.001"], 1),
    ],
)
def test_a_run_goes_on_as_what_it_was(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, change: list[str], code: int
) -> None:
    invoke(*tune_args(tiny))
    config = (tmp_path / "run/config.json").read_text()
    done = invoke("tune", "--resume", "-o", "run", *change, code=code)
    assert "cannot be resumed" in done.stderr
    assert (tmp_path / "run/config.json").read_text() == config


@pytest.mark.slow
def test_the_same_command_continues_the_run(invoke: Invoke, tiny: Tiny) -> None:
    settings = ("--lr-schedule", "constant", "--json")
    whole = json.loads(invoke(*tune_args(tiny, *settings, "-o", "whole", "--steps", "7")).stdout)
    invoke(*tune_args(tiny, *settings, "--steps", "3"))
    done = invoke(*tune_args(tiny, *settings, "--steps", "7"))
    assert "run holds a run with the same settings: resuming it" in done.stderr
    assert json.loads(done.stdout)["adapter_sha256"] == whole["adapter_sha256"]


@pytest.mark.slow
def test_another_command_does_not_touch_the_run(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    invoke(*tune_args(tiny))
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    stderr = invoke(*tune_args(tiny, "--seed", "3"), code=1).stderr
    assert "config.seed was 0, is 3" in stderr
    assert "edgezo tune --resume -o run" in stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == files


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_saves_it(tiny: Tiny, tmp_path: Path, number: int) -> None:
    args = tune_args(tiny, "--steps", "100000", "--json")
    process = start(*args, cwd=tmp_path)
    wait_for_steps(tmp_path / "run")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    result = json.loads(stdout)
    assert result["status"] == "interrupted"
    assert result["steps"] > 0
    assert "Traceback" not in stderr
    assert "--resume" in stderr
    assert load_adapter(tmp_path / "run").info.steps == result["steps"]


# --- bad input ---


@pytest.fixture
def bundle(tiny: Tiny, tmp_path: Path) -> Path:
    """A bundle to spoil, apart from where the command runs."""
    return Path(shutil.copytree(tiny.fp32, tmp_path / "spoiled"))


def edit_manifest(bundle: Path, **changes: object) -> None:
    """Change the top level of a manifest."""
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tune_spoiled(invoke: Invoke, tiny: Tiny, bundle: Path, *more: object) -> str:
    args = ["tune", bundle, "--budget", "8GB", "--data", tiny.data, "--steps", "2", *more]
    done = invoke(*args, "-o", "run", code=1)
    assert done.stdout == ""
    return str(done.stderr)


def test_no_bundle(invoke: Invoke, tiny: Tiny) -> None:
    assert "does not exist" in tune_spoiled(invoke, tiny, Path("nothing"))


def test_truncated_bundle(invoke: Invoke, tiny: Tiny, bundle: Path) -> None:
    weights = bundle / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "bytes in the manifest" in tune_spoiled(invoke, tiny, bundle)


def test_missing_graph(invoke: Invoke, tiny: Tiny, bundle: Path) -> None:
    (bundle / "graphs/block_0.onnx").unlink()
    assert "missing" in tune_spoiled(invoke, tiny, bundle)


def test_other_version(invoke: Invoke, tiny: Tiny, bundle: Path) -> None:
    edit_manifest(bundle, version=99)
    assert "version 99" in tune_spoiled(invoke, tiny, bundle)


def test_altered_bundle(invoke: Invoke, tiny: Tiny, bundle: Path) -> None:
    tokenizer = bundle / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b"w96", b"x96"))
    assert "sha256" in tune_spoiled(invoke, tiny, bundle)


def test_unknown_architecture(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "hypothetical"}')
    done = invoke("export", "model", "-o", "out", code=1)
    assert "hypothetical" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_losses_that_are_not_numbers(invoke: Invoke, tiny: Tiny, bundle: Path) -> None:
    """The output norm's weight is NaN: no loss is finite."""
    import safetensors.numpy

    path = bundle / "weights.safetensors"
    head = safetensors.numpy.load_file(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    start_at, end = header["model.norm.weight"]["data_offsets"]
    content = bytearray(path.read_bytes())
    nan = np.full(head["model.norm.weight"].shape, np.nan, np.float32).tobytes()
    content[8 + size + start_at : 8 + size + end] = nan
    path.write_bytes(content)
    assert "are not finite" in tune_spoiled(invoke, tiny, bundle, "--no-verify")
    settings = ("--no-verify", *RATES, "--no-rollback")
    assert "nan" in tune_spoiled(invoke, tiny, bundle, *settings)
    receipt = json.loads(Path("run/receipt.json").read_text())
    assert receipt["status"] == "diverged"
    assert receipt["steps"] == 0
    done = invoke("eval", bundle, "--data", tiny.data, "--no-verify", code=1)
    assert "nan" in done.stderr


def test_losses_that_become_infinite_keep_the_last_state(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail_late(batch: Batch, scores: Any) -> Any:
        nonlocal calls
        calls += 1
        return example_losses(batch, scores) * (np.inf if calls > 3 else 1)

    monkeypatch.setattr("edgezo_runtime.evaluation.objectives.example_losses", fail_late)
    done = invoke(*tune_args(tiny, *RATES, "--no-rollback"), code=1)
    assert "the state after 3 steps is saved in run" in done.stderr
    adapter = load_adapter(Path("run"))
    assert adapter.info.steps == 3
    assert all(np.isfinite(value).all() for value in adapter.tensors.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row"),
        ('{"text": "w5", "label": 0}\n{"text": \n', "line 2"),
        ('{"text": "w5", "label": 0}\n[1]\n', "line 2"),
        ('{"txt": "w5", "label": 0}\n', "no field 'text'"),
        ('{"text": "w5"}\n', "label"),
        ('{"text": "w5", "label": 2}\n', "line 1"),
        ('{"text": 5, "label": 0}\n', "expected a string"),
    ],
)
def test_bad_rows(invoke: Invoke, tiny: Tiny, tmp_path: Path, text: str, message: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(text)
    done = invoke(
        "tune", tiny.int8, "--budget", "8GB", "--data", rows, "--template", "{text} w4",
        "--label", " w10", "--label", " w11", code=5,
    )  # fmt: skip
    assert message in done.stderr
    assert "rows.jsonl" in done.stderr


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--data", "none.jsonl"], 5),
        (["--valid", "none.jsonl"], 5),
        (["--template", "{text"], 2),
        (["--label", " w10"], 2),
    ],
)
def test_bad_data_settings(invoke: Invoke, tiny: Tiny, more: list[str], code: int) -> None:
    done = invoke(*tune_args(tiny), *more, code=code)
    assert done.stderr.startswith("error: ")


def test_bad_task_file(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny.data, tmp_path / "data"))
    (data / "task.json").write_text('{"template": 1}')
    assert "task.json" in invoke(*tune_args(tiny, "--data", data), code=5).stderr


def test_fewer_rows_than_a_batch(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "few.jsonl", [{"text": f"w{5 + i} w6"} for i in range(3)])
    done = invoke(*tune_args(tiny, "--data", rows, "--json"))
    result = json.loads(done.stdout)
    assert result["steps"] == 4
    assert any("fewer than the batch size" in text for text in result["warnings"])


def test_evaluations_during_the_run(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    invoke(*tune_args(tiny, "--eval-every", "0.000001"))
    *lines, last = read_metrics(tmp_path / "run")
    assert last["event"] == "keep"
    # After every step but the last, whose evaluation is the one after tuning.
    events = [line.get("when", "step") for line in lines]
    assert events == ["before", *["step", "during"] * 3, "step", "after"]
    seconds = [line["seconds"] for line in lines if line["event"] == "eval"]
    spent = [line["elapsed_s"] for line in lines if line["event"] == "step"]
    # Only steps, and what is measured before the first, count as tuning time.
    assert np.diff(seconds[1:]) == pytest.approx(spent[1:], abs=1e-3)


@pytest.mark.slow
def test_evaluations_during_the_run_change_nothing(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    ends = ["--max-time", "0", "--json"]  # by steps alone: the rates do not depend on the clock
    often = json.loads(invoke(*tune_args(tiny, "--eval-every", "0.000001", *ends)).stdout)
    args = tune_args(tiny, "-o", "other", *ends)
    assert json.loads(invoke(*args).stdout)["adapter_sha256"] == often["adapter_sha256"]


def test_evaluations_need_rows(invoke: Invoke, tiny: Tiny) -> None:
    done = invoke(*tune_args(tiny, "--data", tiny.prompts, "--eval-every", "1m"), code=2)
    assert "--eval-every 1m00s: there are no rows to evaluate on" in done.stderr
