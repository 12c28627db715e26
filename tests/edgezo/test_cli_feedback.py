"""`edgezo tune --method feedback`: from rows to an adapter, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgezo.cli.tune import run_command
from edgezo.cli.tune.default_bundle import default_name
from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.errors import UsageError
from tests.edgezo.conftest import Invoke, Tiny, tune_args

FEEDBACK = ("--method", "feedback", "--pairs", "24", "--batch-size", "8", "--steps", "8")


@pytest.mark.slow
def test_it_tunes_replays_and_resumes(invoke: Invoke, deep: Tiny, tmp_path: Path) -> None:
    done = invoke(*tune_args(deep, "--json", *FEEDBACK))
    assert "feedback from 24 pairs, lr auto, eps auto" in done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 8
    assert result["estimated_blocks"] == result["first_order_blocks"] == []
    assert result["lr"] > 0
    assert result["eps"] > 0
    tensors = load_adapter(tmp_path / "run/adapter.safetensors").tensors
    assert {name.rpartition(".")[0] for name in tensors} == {
        f"model.layers.1.{layer}" for layer in ("self_attn.o_proj", "mlp.down_proj")
    }
    assert all(np.any(value) for value in tensors.values())
    again = json.loads(invoke("replay", deep.int8, "run", "-o", "again", "--json").stdout)
    assert again["adapter_sha256"] == result["adapter_sha256"]
    more = json.loads(invoke("tune", "--resume", "-o", "run", "--steps", "10", "--json").stdout)
    assert more["steps"] == 10
    exported = invoke("adapter", "export", "run", "peft", "--format", "peft")
    assert exported.exit_code == 0
    assert (tmp_path / "peft/adapter_model.safetensors").exists()


def test_bundles_without_sites_are_refused(invoke: Invoke, tiny: Tiny) -> None:
    stderr = invoke(*tune_args(tiny, *FEEDBACK), code=2).stderr
    assert (
        "--method feedback: the layers that the blocks add to the residual have no adapters"
        in stderr
    )
    assert "edgezo export" in stderr


@pytest.mark.slow
def test_it_carries_the_error_of_whole_rows(invoke: Invoke, deep: Tiny, tmp_path: Path) -> None:
    given = ("--method", "feedback", "--scope", "all", "--batch-size", "8", "--steps", "5")
    done = invoke(*tune_args(deep, "--json", *given))
    assert "feedback: the error carried back to 1 blocks, lr auto" in done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 5
    assert result["first_order_lr"] > 0
    tensors = load_adapter(tmp_path / "run/adapter.safetensors").tensors
    names = {name for name, value in tensors.items() if name.endswith("lora_B") and value.any()}
    layers = ("self_attn.o_proj", "mlp.down_proj")
    assert names == {f"model.layers.1.{layer}.lora_B" for layer in layers}
    again = json.loads(invoke("replay", deep.int8, "run", "-o", "again", "--json").stdout)
    assert again["adapter_sha256"] == result["adapter_sha256"]
    more = json.loads(invoke("tune", "--resume", "-o", "run", "--steps", "8", "--json").stdout)
    assert more["steps"] == 8


def test_other_settings_are_refused(invoke: Invoke, deep: Tiny) -> None:
    stderr = invoke(*tune_args(deep, *FEEDBACK, "--schedule", "last:1"), code=2).stderr
    assert "--schedule last:1: feedback takes all only" in stderr


@pytest.mark.parametrize(
    ("method", "labels", "rank"),
    [
        ("feedback", 6, 5),
        ("feedback", 20, 8),
        ("feedback", 2, None),
        ("feedback", 0, 8),
        ("auto", 6, None),
    ],
)
def test_the_default_model_gets_a_rank_for_the_classes(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, method: str, labels: int, rank: int
) -> None:
    asked: list[int | None] = []

    def stand_in(rank: int | None = None) -> Path:
        asked.append(rank)
        raise UsageError("no bundle")

    monkeypatch.setattr(run_command, "default_bundle", stand_in)
    words = [part for number in range(labels) for part in ("--label", f" w{10 + number}")]
    invoke("tune", "--data", tiny.data, "--budget", "8GB", "--method", method, *words, code=2)
    assert asked == [rank]


def test_a_run_of_the_default_model_has_its_name(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had that of the folder in the cache, with settings, version and digest."""
    monkeypatch.setattr(run_command, "default_bundle", lambda rank: tiny.int8)
    made = invoke("tune", "--data", tiny.data, "--budget", "8GB", "--dry-run", "--json")
    run = Path(json.loads(made.stdout)["run"])
    assert re.fullmatch(r"SmolLM2-135M-Instruct-\d{8}-\d{6}", run.name)


def test_default_bundles_of_other_ranks_have_other_names() -> None:
    assert default_name() == default_name(None)
    assert default_name(5) not in (default_name(), default_name(4))
