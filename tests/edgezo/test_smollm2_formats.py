"""SmolLM2 with an adapter in every format: the programs agree with edgezo on SST-2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bundles.smollm2 import smollm2, smollm2_bundle
from tests.edgezo.conftest import ROOT, Invoke

DATA = ROOT.parent / "shared" / "data" / "sst2"
TEMPLATE = "{sentence} It was"
LABELS = (" terrible", " great")
ROWS = 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs SST-2 in ../shared/data"),
    # PEFT asks transformers 5 for a property under its old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


def test_every_program_scores_what_edgezo_scores(invoke: Invoke, tmp_path: Path) -> None:
    """And so does the adapter that comes back from PEFT's folder."""
    pytest.importorskip("peft")
    from edgezo_runtime.adapters.adapter import load_adapter
    from edgezo_runtime.bundle.bundle import Bundle
    from tests.benchmarks.adapter_formats import Comparison, sst2_sample
    from tests.benchmarks.models import write_float32

    model, path = smollm2(), smollm2_bundle("fp32")
    task = ["--template", TEMPLATE, *(part for label in LABELS for part in ("--label", label))]
    invoke(
        "tune", path, "--budget", "8GB", "--data", DATA / "train.jsonl", *task,
        "--steps", "4", "--first-order-lr", "0.003", "--scope", "all", "--valid", "none",
        "-o", "run",
    )  # fmt: skip
    write_float32(str(model), tmp_path / "torch")
    bundle = Bundle.open(path)
    adapter = load_adapter(Path("run"))
    sample = sst2_sample(bundle, DATA / "validation.jsonl", ROWS)
    (tmp_path / "out").mkdir()
    compared = Comparison(adapter, bundle, tmp_path / "torch", model, sample, tmp_path / "out")
    found = compared.rows()
    assert {row.format for row in found} >= {"peft", "gguf", "mlx", "onnx", "merged fp32"}
    for row in found:
        assert row.found.effect > 0.05, row
        assert row.found.relative < (0.01 if row.exact else 0.25), row
        assert not row.exact or row.found.same == 1, row

    invoke("adapter", "import", "out/peft", path, "-o", "in.safetensors")
    again = load_adapter(Path("in.safetensors")).params(bundle)
    for name, value in adapter.params(bundle).items():
        np.testing.assert_array_equal(again[name], value)
    rows = (DATA / "validation.jsonl", *task, "--limit", str(ROWS))
    invoke("eval", path, "--adapter", "in.safetensors", "--data", *rows)


def test_an_adapter_for_answers_is_proved(invoke: Invoke, tmp_path: Path) -> None:
    """PEFT and llama.cpp (read back where it is not installed) start at the prompt's last token."""
    pytest.importorskip("peft")

    model, path = smollm2(), smollm2_bundle("fp32")
    task = ["--template", TEMPLATE, *(part for label in LABELS for part in ("--label", label))]
    invoke(
        "tune", path, "--budget", "8GB", "--data", DATA / "train.jsonl", *task,
        "--steps", "3", "--first-order-lr", "0.001", "--valid", "none", "-o", "run",
    )  # fmt: skip
    peft = ("adapter", "export", "run", "peft", "--verify", "--weights", model)
    assert "verified    with PEFT" in invoke(*peft).output
    gguf = ("adapter", "export", "run", "a.gguf", "--format", "gguf", "--verify")
    assert "verified" in invoke(*gguf).output
    try:
        import llama_cpp  # noqa: F401
    except (ImportError, OSError):
        return
    again = invoke(*gguf, "--force", "--weights", model)
    assert "verified    with llama.cpp" in again.output
