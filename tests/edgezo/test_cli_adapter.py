"""Adapters out and in on the command line: formats, proofs, runs that begin from one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.edgezo.conftest import Invoke, Tiny

TUNE = ("--steps", "3", "--batch-size", "4", "--eps", "0.05", "--lr", "0.5", "--hybrid", "0")


@pytest.fixture
def run(invoke: Invoke, tiny: Tiny) -> Path:
    """A run on the float32 bundle whose adapter acts on every token."""
    data = ("--data", tiny.data, "--scope", "all")
    invoke("tune", tiny.fp32, "--budget", "8GB", *data, *TUNE, "-o", "run")
    return Path("run")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_every_format_is_what_it_should_be(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    """Needs torch, PEFT, onnx and gguf; mlx-lm and llama.cpp where they are installed."""
    pytest.importorskip("peft")
    for name in ("peft", "gguf", "mlx", "onnx", "safetensors", "merged"):
        out = Path(f"out.{name}")
        result = json.loads(
            invoke("adapter", "export", run, out, "--format", name, "--verify", "--json").stdout
        )
        assert result["format"] == name
        assert out.is_dir() == (name in ("peft", "mlx", "merged"))
        verified = result["verified"]
        assert verified["relative"] < 1e-2
        assert verified["difference"] < 1e-4
        assert verified["effect"] > 1e-4


def test_a_wrong_export_is_found_out(
    invoke: Invoke, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of q and k as transformers has them, in a file for llama.cpp."""
    from edgezo_export import gguf_adapter

    monkeypatch.setattr(gguf_adapter, "interleave", lambda values, heads: values)
    found = invoke("adapter", "export", run, "a.gguf", "--format", "gguf", "--verify", code=1)
    assert "does not agree with edgezo" in found.output


def test_an_adapter_file_needs_its_bundle(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    file = run / "adapter.safetensors"
    args = ("adapter", "export", file, "a.gguf", "--format", "gguf")
    assert "name it with --bundle" in invoke(*args, code=2).output
    invoke(*args, "--bundle", tiny.fp32)
    assert "exists" in invoke(*args, "--bundle", tiny.fp32, code=2).output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--dtype", "fp16"), "an option of --format merged"),
        (("--format", "dora"), "'dora' is not one of peft, gguf, mlx, onnx"),
        (("--format", "merged", "--weights", "nowhere"), "no such folder or file"),
        (("--format", "merged", "--base-model", "org/m"), "name where the weights of org/m lie"),
    ],
)
def test_wrong_options(invoke: Invoke, run: Path, args: tuple[object, ...], message: str) -> None:
    assert message in invoke("adapter", "export", run, "out", *args, code=2).output
    assert not Path("out").exists()


def test_out_and_in_again(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    data = ("--data", tiny.data)
    invoke("adapter", "export", run, "peft", "--base-model", "org/elsewhere")
    args = ("adapter", "import", "peft", tiny.int8, "-o", "in.safetensors")
    assert "pass --base-model" in invoke(*args, code=2).output
    result = json.loads(invoke(*args, "--base-model", tiny.model, "--json").stdout)
    assert (result["rank"], result["scope"]) == (2, "all")
    own, again = (
        json.loads(invoke("eval", tiny.int8, *data, "--adapter", adapter, "--json").stdout)
        for adapter in (run, "in.safetensors")
    )
    assert again["loss"] == pytest.approx(own["loss"], rel=1e-6)


def test_a_run_begins_from_an_adapter(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    tune = ("tune", tiny.fp32, "--budget", "8GB", "--data", tiny.data, *TUNE)
    invoke(*tune, "--adapter", run, "-o", "more")
    first, second = (
        json.loads(Path(f"{name}/receipt.json").read_text()) for name in ("run", "more")
    )
    assert second["loss_before"] == first["loss_after"]
    assert second["scope"] == "all"
    wrong = invoke(*tune, "--adapter", run, "--scope", "answer", "-o", "other", code=2)
    assert "acts on every token; use --scope all" in wrong.output
    # the run keeps what it began from
    run.rename("moved")
    invoke("tune", "--resume", "-o", "more")
    invoke("replay", tiny.fp32, "more", "-o", "again.safetensors")
    assert Path("again.safetensors").read_bytes() == Path("more/adapter.safetensors").read_bytes()
    changed = invoke(*tune, "--adapter", "more", "-o", "more", code=1)
    assert "start was" in changed.output
    Path("more/start.safetensors").unlink()
    lost = invoke("replay", tiny.fp32, "more", "-o", "x.safetensors", code=1)
    assert "name it with --adapter" in lost.output
    invoke("replay", tiny.fp32, "more", "-o", "x.safetensors", "--adapter", "moved")
    wrong = invoke("replay", tiny.fp32, "more", "-o", "y.safetensors", "--adapter", "more", code=1)
    assert "not the adapter that the run" in wrong.output
