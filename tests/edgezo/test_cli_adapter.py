"""Adapters out and in on the command line: formats, proofs, runs that begin from one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.edgezo.conftest import Invoke, Tiny, write_rows

TUNE = ("--steps", "3", "--batch-size", "4", "--eps", "0.05", "--lr", "0.5", "--first-order", "0")


@pytest.fixture
def run(invoke: Invoke, tiny: Tiny) -> Path:
    """A run on the float32 bundle whose adapter acts on every token."""
    data = ("--data", tiny.data, "--scope", "all")
    invoke("tune", tiny.fp32, "--budget", "8GB", *data, *TUNE, "-o", "run")
    return Path("run")


@pytest.mark.slow
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
    from edgezo_export.adapters import gguf_adapter

    monkeypatch.setattr(gguf_adapter, "interleave", lambda values, heads: values)
    found = invoke("adapter", "export", run, "a.gguf", "--format", "gguf", "--verify", code=1)
    assert "does not agree with edgezo" in found.output


def test_rows_without_prompts_prove_as_much(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a single token no attention would tell one order of q from another."""
    from edgezo_export.adapters import gguf_adapter

    rows: list[dict[str, object]] = [
        {"text": " ".join(f"w{(7 * i + j * j) % 70 + 20}" for j in range(9))} for i in range(20)
    ]
    write_rows(Path("rows.jsonl"), rows)
    data = ("--data", "rows.jsonl", "--scope", "all")
    invoke("tune", tiny.fp32, "--budget", "8GB", *data, *TUNE, "-o", "run")
    export = ("adapter", "export", "run", "a.gguf", "--format", "gguf", "--verify", "--force")
    invoke(*export)
    monkeypatch.setattr(gguf_adapter, "interleave", lambda values, heads: values)
    assert "does not agree with edgezo" in invoke(*export, code=1).output


def test_an_adapter_file_needs_its_bundle(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    file = run / "adapter.safetensors"
    args = ("adapter", "export", file, "a.gguf", "--format", "gguf")
    assert "name it with --bundle" in invoke(*args, code=2).output
    invoke(*args, "--bundle", tiny.fp32)
    assert "exists" in invoke(*args, "--bundle", tiny.fp32, code=2).output


@pytest.mark.slow
def test_another_bundle_is_refused(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    """Its heads would be those by which rows are put in order."""
    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.schemes.lora import Lora

    export_bundle(str(tiny.model), Path("other"), ExportConfig(quant="fp32", scheme=Lora(rank=3)))
    args = ("adapter", "export", run, "a.gguf", "--format", "gguf", "--bundle", "other")
    assert "use a bundle exported with" in invoke(*args, code=1).output
    moved = json.loads((run / "config.json").read_text()) | {"bundle": "/nowhere/b"}
    (run / "config.json").write_text(json.dumps(moved))
    assert "name its new place with --bundle" in invoke(*args[:-2], code=2).output
    assert not Path("a.gguf").exists()


def test_what_a_proof_needs_is_asked_for_first(invoke: Invoke, run: Path) -> None:
    """The command can be given again, with what was missing."""
    export = ("adapter", "export")
    file = invoke(*export, run / "adapter.safetensors", "out", "--verify", code=2)
    assert "name it with --bundle" in file.output
    lost = invoke(*export, run, "out", "--verify", "--weights", "nowhere", code=2)
    assert "no such folder or file" in lost.output
    gguf = ("--format", "gguf", "--verify", "--weights", ".")
    assert "takes a .gguf file" in invoke(*export, run, "out", *gguf, code=2).output
    assert not Path("out").exists()


def test_what_is_read_is_never_written_over(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    """With --force either: a run, a bundle and a model are worth more than an export."""
    shutil.copytree(tiny.fp32, "bundle")
    shutil.copytree(tiny.model, "base/model")
    Path("base/config.json").write_text("{}")
    invoke("adapter", "export", run, "peft")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    def refused(*args: object) -> None:
        assert "name another" in invoke("adapter", *args, "--force", code=2).output
        after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        assert after == before

    merged = ("--format", "merged", "--weights", "base/model")
    refused("export", run, run, *merged)
    refused("export", run, "base", *merged)
    file = ("--format", "safetensors", "--bundle", "bundle")
    refused("export", run, run / "journal.bin", *file)
    refused("export", run, run / "adapter.safetensors", *file)
    refused("export", run, "bundle/weights.safetensors", *file)
    refused("export", run, "base/model/model.safetensors", *file, "--weights", "base/model")
    to = ("import", "peft", "bundle", "--base-model", tiny.model, "-o")
    refused(*to, "bundle/trainable.safetensors")
    refused(*to, "peft/adapter_model.safetensors")
    invoke("adapter", "export", run, run / "peft")
    invoke("adapter", "export", run, run / "peft", "--force")


@pytest.mark.slow
def test_weights_of_16_bits_take_up_less(invoke: Invoke, tiny: Tiny) -> None:
    """As most models are stored: what rounding does to the adapter is no other adapter."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny.model, "half")
    model = AutoModelForCausalLM.from_pretrained(tiny.model, dtype=torch.bfloat16)
    model.save_pretrained("half")
    invoke("export", "half", "-o", "b", "--quant", "fp32", "--rank", "2", "--targets", "q_proj")
    tune = ("tune", "b", "--budget", "8GB", "--data", tiny.data, *TUNE, "--scope", "all")
    invoke(*tune, "--lr", "0.03", "-o", "run")
    merged = ("adapter", "export", "run", "out", "--format", "merged", "--verify")
    found = json.loads(invoke(*merged, "--json").stdout)["verified"]
    assert found["bound"] == 0.25
    assert 0.02 < found["relative"] < 0.25
    wide = json.loads(invoke(*merged, "--force", "--dtype", "fp32", "--json").stdout)["verified"]
    assert wide["bound"] == 0.02
    invoke(*tune, "--lr", "0.0003", "-o", "less")
    told = invoke("adapter", "export", "less", *merged[3:], "--force", code=1).output
    assert "--dtype fp32 keeps more" in told


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_what_drowns_in_rounding_is_proved_in_float32(
    invoke: Invoke, tiny: Tiny, kind: str
) -> None:
    """What rounding the base model does is more than a short run, and no fault of the export."""
    pytest.importorskip("peft")
    for quant in ("int8", "fp32"):
        invoke("export", tiny.model, "-o", quant, "--quant", quant, "--trainable", kind)
    tune = ("tune", "int8", "--budget", "8GB", "--data", tiny.data, *TUNE, "--scope", "all")
    invoke(*tune, "--lr", "0.003", "-o", "run")
    export = ("adapter", "export", "run", "out", "--verify")
    rounded = invoke(*export, code=1).output
    assert "nothing is proved: without the adapter the scores differ by 0." in rounded
    result = json.loads(invoke(*export, "--force", "--bundle", "fp32", "--json").stdout)
    assert result["verified"]["bound"] == 0.02
    assert 0 < result["verified"]["base"] < 1e-5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--dtype", "fp16"), "only --format merged has a data type"),
        (("--format", "dora"), "'dora' is not one of peft, gguf, mlx, onnx"),
        (("--format", "merged", "--weights", "nowhere"), "no such folder or file"),
        (("--format", "merged", "--base-model", "org/m"), "name the weights of org/m"),
    ],
)
def test_wrong_options(invoke: Invoke, run: Path, args: tuple[object, ...], message: str) -> None:
    assert message in invoke("adapter", "export", run, "out", *args, code=2).output
    assert not Path("out").exists()


def test_out_and_in_again(invoke: Invoke, tiny: Tiny, run: Path) -> None:
    data = ("--data", tiny.data)
    invoke("adapter", "export", run, "peft", "--base-model", "org/elsewhere")
    args = ("adapter", "import", "peft", tiny.int8, "-o", "in.safetensors")
    assert "set --base-model" in invoke(*args, code=2).output
    result = json.loads(invoke(*args, "--base-model", tiny.model, "--json").stdout)
    assert (result["rank"], result["scope"]) == (2, "all")
    own, again = (
        json.loads(invoke("eval", tiny.int8, *data, "--adapter", adapter, "--json").stdout)
        for adapter in (run, "in.safetensors")
    )
    assert again["loss"] == pytest.approx(own["loss"], rel=1e-6)


@pytest.mark.slow
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
    # the run keeps what it began from: that may change, or go away
    shutil.copytree(run, "kept")
    invoke(*tune, "--scope", "all", "-o", "run", "--resume", "--steps", "5")
    invoke("tune", "--resume", "-o", "more", "--steps", "4")
    invoke(*tune, "--adapter", run, "-o", "more", "--steps", "5")
    (run / "adapter.safetensors").write_bytes(b"damaged")
    invoke("tune", "--resume", "-o", "more")
    run.rename("moved")
    invoke("tune", "--resume", "-o", "more")
    invoke("replay", tiny.fp32, "more", "-o", "again.safetensors")
    assert Path("again.safetensors").read_bytes() == Path("more/adapter.safetensors").read_bytes()
    changed = invoke(*tune, "--adapter", "more", "-o", "more", code=1)
    assert "start was" in changed.output
    Path("more/start.safetensors").unlink()
    lost = invoke("replay", tiny.fp32, "more", "-o", "x.safetensors", code=1)
    assert "name it with --adapter" in lost.output
    invoke("replay", tiny.fp32, "more", "-o", "x.safetensors", "--adapter", "kept")
    wrong = invoke("replay", tiny.fp32, "more", "-o", "y.safetensors", "--adapter", "more", code=1)
    assert "not the initial adapter of the run" in wrong.output
