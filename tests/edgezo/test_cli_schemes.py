"""Schemes on the command line: export, tune, evaluate, hand out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.edgezo.conftest import Invoke, Tiny

TUNE = ("--steps", "2", "--batch-size", "4", "--eps", "0.01", "--lr", "0.01")


def exported(invoke: Invoke, tiny: Tiny, *args: object) -> Path:
    """A bundle of the tiny model."""
    result = json.loads(invoke("export", tiny.model, "-o", "b", "--json", *args).stdout)
    assert result["trainable"] == args[1]
    assert result["trainable_parameters"] > 0
    return Path("b")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "to_peft"),
    [
        (("--trainable", "ia3"), True),
        (("--trainable", "prefix", "--virtual-tokens", 2), True),
        (("--trainable", "last-layers", "--last-layers", 1), False),
        pytest.param(("--trainable", "prompt"), True, marks=pytest.mark.slow),
        pytest.param(("--trainable", "lora-xs", "--rank", 2), True, marks=pytest.mark.slow),
        pytest.param(("--trainable", "bitfit", "--biases", "all"), False, marks=pytest.mark.slow),
        pytest.param(("--trainable", "tt", "--bottleneck", 8), False, marks=pytest.mark.slow),
        pytest.param(("--trainable", "scales"), False, marks=pytest.mark.slow),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_from_export_to_adapter(
    invoke: Invoke, tiny: Tiny, args: tuple[object, ...], to_peft: bool
) -> None:
    bundle = exported(invoke, tiny, *args)
    data = ("--data", tiny.data)
    # PEFT knows no adapters but LoRA that act on answers only
    invoke("tune", bundle, "--budget", "8GB", *data, *TUNE, "--scope", "all", "-o", "run")
    receipt = json.loads(Path("run/receipt.json").read_text())
    after = json.loads(invoke("eval", bundle, *data, "--adapter", "run", "--json").stdout)
    assert after["loss"] == receipt["loss_after"]
    assert after["loss"] != receipt["loss_before"]
    file = ("adapter", "export", "run", "a.safetensors", "--format", "safetensors", "--json")
    assert json.loads(invoke(*file).stdout)["trainable"] == args[1]
    again = invoke("eval", bundle, *data, "--adapter", "a.safetensors", "--json")
    assert json.loads(again.stdout)["loss"] == after["loss"]
    folder = ("adapter", "export", "run", "peft", "--format", "peft")
    if to_peft:
        invoke(*folder)
    else:
        assert "set --format to safetensors" in invoke(*folder, code=2).output


@pytest.mark.slow
def test_scope_answer_of_what_changes_every_token(invoke: Invoke, tiny: Tiny) -> None:
    bundle = exported(invoke, tiny, "--trainable", "prompt")
    args = ("tune", bundle, "--budget", "8GB", "--data", tiny.data, *TUNE, "--scope", "answer")
    assert "--scope answer: prompt changes" in invoke(*args, code=2).output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--trainable", "ia3", "--rank", 2), "--rank does not go with --trainable ia3"),
        (("--trainable", "ia3", "--seed", 2), "--seed does not go with --trainable ia3"),
        (("--virtual-tokens", 5), "--virtual-tokens does not go with --trainable lora"),
        (("--trainable", "tt", "--last-layers", 1), "it is an option of last-layers"),
        (("--trainable", "prefix", "--virtual-tokens", 0), "--virtual-tokens 0"),
        (("--trainable", "dora"), "'dora' is not one of lora, lora-xs, ia3"),
    ],
)
def test_wrong_options(invoke: Invoke, tiny: Tiny, args: tuple[object, ...], message: str) -> None:
    assert message in invoke("export", tiny.model, "-o", "b", *args, code=2).output
    assert not Path("b").exists()
