"""SmolLM2 with the exported adapter: PEFT and torch agree with `edgezo eval`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bundles.smollm2 import smollm2, smollm2_bundle
from tests.edgezo.conftest import ROOT, Invoke

DATA = ROOT.parent / "shared" / "data" / "sst2"
TEMPLATE = "{sentence} It was"
LABELS = (" terrible", " great")
ROWS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs SST-2 in ../shared/data"),
    # PEFT asks transformers 5 for a property under its old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


def test_peft_predicts_what_edgezo_predicts(invoke: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, bundle = smollm2(), smollm2_bundle("fp32")
    task = ["--template", TEMPLATE, *(part for label in LABELS for part in ("--label", label))]
    invoke(
        "tune", bundle, "--budget", "8GB", "--data", DATA / "train.jsonl", *task,
        "--steps", "15", "--batch-size", "8", "--first-order-lr", "0.003", "--valid", "none",
        "-o", "run",
    )  # fmt: skip
    rows = (DATA / "validation.jsonl", *task, "--limit", str(ROWS))
    invoke("eval", bundle, "--adapter", "run", "--data", *rows, "--predictions", "own.jsonl")
    invoke("eval", bundle, "--data", *rows, "--predictions", "untuned.jsonl")
    invoke("adapter", "export", "run", "peft")

    own = read_predictions(tmp_path / "own.jsonl")
    untuned = read_predictions(tmp_path / "untuned.jsonl")
    theirs = torch_predictions(model, tmp_path / "peft")
    assert len(own) == len(theirs) == ROWS
    assert (own == theirs).mean() >= 0.99
    assert (own != untuned).mean() > 0.05  # else the adapter could be missing


def read_predictions(path: Path) -> np.ndarray:
    """Class of each row."""
    return np.array([json.loads(line)["prediction"] for line in path.read_text().splitlines()])


def torch_predictions(model: Path, adapter: Path) -> np.ndarray:
    """Classes that transformers and PEFT predict, one row at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    base = AutoModelForCausalLM.from_pretrained(
        model.parent, gguf_file=model.name, dtype=torch.float32
    )
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    words = [tokenizer(label, add_special_tokens=False).input_ids for label in LABELS]
    assert all(len(word) == 1 for word in words)
    found = []
    for line in (DATA / "validation.jsonl").read_text().splitlines()[:ROWS]:
        prompt = TEMPLATE.format(**json.loads(line))
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False).input_ids])
        with torch.inference_mode():
            logits = tuned(input_ids=ids).logits[0, -1]
        found.append(int(logits[[word[0] for word in words]].argmax()))
    return np.array(found)
