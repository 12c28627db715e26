"""Bundles of every form of weights through all commands."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.bundles.tiny import tuned_bundle
from tests.conftest import copied
from tests.edgezo.conftest import Invoke, Tiny

RUN = ("--budget", "8GB", "--steps", "4", "--batch-size", "8", "--threads", "1", "--keep", "last")
ZEROTH = ("--first-order", "0", "--scope", "all", "--eps", "0.05", "--lr", "0.5")


@pytest.fixture
def w4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny llama in 4 bits."""
    return copied(tmp_path_factory.mktemp("w4") / "tiny.w4", tuned_bundle, "w4")


def result_of(invoke: Invoke, *args: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(invoke(*args, "--json").stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ZEROTH], ids=["first-order", "two-point"])
def test_w4_from_plan_to_replay(
    invoke: Invoke, tiny: Tiny, w4: Path, options: tuple[str, ...]
) -> None:
    """An interrupted run ends with the bits of one that was not, and replays to them."""
    assert "(w4)" in invoke("plan", w4, "--budget", "8GB", "--data", tiny.data).stdout
    whole = result_of(invoke, "tune", w4, "--data", tiny.data, *RUN, *options, "-o", "whole")
    shutil.copytree("whole", "run")
    for name in ("snapshot.safetensors", "receipt.json"):
        os.remove(f"run/{name}")
    os.truncate("run/journal.bin", os.path.getsize("run/journal.bin") - 3)
    again = result_of(invoke, "tune", "--resume", "-o", "run")
    assert again["adapter_sha256"] == whole["adapter_sha256"]
    replayed = result_of(invoke, "replay", w4, "whole", "-o", "again.safetensors")
    assert replayed["adapter_sha256"] == whole["adapter_sha256"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_w4_adapters_go_out_and_in(invoke: Invoke, tiny: Tiny, w4: Path) -> None:
    pytest.importorskip("peft")
    invoke("tune", w4, "--data", tiny.data, *RUN, *ZEROTH, "-o", "run")
    for name in ("peft", "gguf", "mlx", "onnx", "safetensors", "merged"):
        made = result_of(invoke, "adapter", "export", "run", f"out.{name}", "--format", name)
        assert made["format"] == name
    back = ("adapter", "import", "out.peft", w4, "-o", "in.safetensors")
    result_of(invoke, *back, "--base-model", tiny.model)
    data = ("--data", tiny.data)
    own, again = (
        result_of(invoke, "eval", w4, *data, "--adapter", adapter)["loss"]
        for adapter in ("run", "in.safetensors")
    )
    assert again == pytest.approx(own, rel=1e-6)
    text = invoke("generate", w4, "--prompt", "w20 w5", "--max-new-tokens", "4").stdout
    assert text.strip()


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["w8", "fp16"])
def test_other_forms_tune(invoke: Invoke, tiny: Tiny, quant: str) -> None:
    told = invoke("export", tiny.model, "-o", "bundle", "--quant", quant).stderr
    assert f"({quant})" in told
    for options in ((), ZEROTH):
        found = result_of(invoke, "tune", "bundle", "--data", tiny.data, *RUN, *options, "-o", "r")
        assert found["steps"] == 4
        invoke("eval", "bundle", "--data", tiny.data, "--adapter", "r")
        shutil.rmtree("r")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_kept_codes_from_export_to_adapters(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    """A folder of GPTQ: exported, tuned both ways, its adapter written for two programs."""
    pytest.importorskip("peft")
    from tests.export.quantized_models import PACKINGS, write_folder

    write_folder(tmp_path / "gptq", PACKINGS["gptq-act-order"])
    told = invoke("export", tmp_path / "gptq", "-o", "kept", "--quant", "keep").stderr
    assert "weights as the checkpoint has them (keep)" in told
    for options in ((), ZEROTH):
        shutil.rmtree("run", ignore_errors=True)
        invoke("tune", "kept", "--data", tiny.data, *RUN, *options, "-o", "run")
    for name in ("peft", "gguf"):
        made = result_of(invoke, "adapter", "export", "run", f"out.{name}", "--format", name)
        assert made["format"] == name
    own = result_of(invoke, "eval", "kept", "--data", tiny.data, "--adapter", "run")["loss"]
    back = ("adapter", "import", "out.peft", "kept", "-o", "in.safetensors")
    result_of(invoke, *back, "--base-model", tmp_path / "gptq")
    adapter = ("--adapter", "in.safetensors")
    again = result_of(invoke, "eval", "kept", "--data", tiny.data, *adapter)["loss"]
    assert again == pytest.approx(own, rel=1e-6)


def test_wrong_sizes_are_refused(invoke: Invoke, tiny: Tiny) -> None:
    export = ("export", tiny.model, "-o", "bundle", "--quant", "w4")
    told = invoke(*export, "--group-size", "48", code=2).stderr
    assert "--group-size 48: must be one of 16, 32, 64, 128" in told
    told = invoke(*export, "--calibration-rows", "-1", code=2).stderr
    assert "--calibration-rows -1: must be from 0 to 512" in told
    assert not Path("bundle").exists()
