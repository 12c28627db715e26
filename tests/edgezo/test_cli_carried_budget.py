"""The memory of a run whose error is carried back: predicted, against the peak of its process.

The model has next to no layers but wide states, so the sums that mean derivatives are learned from
are most of what the run takes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo_runtime.engine.carried_error import learning_bytes
from tests.edgezo import test_cli_budgets
from tests.edgezo.conftest import write_rows
from tests.edgezo.test_cli_budgets import COMMAND, run

pytestmark = test_cli_budgets.pytestmark

HIDDEN = 1024


@pytest.fixture(scope="module")
def broad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two blocks with states of 1,024 numbers and MLPs of 32, int8."""
    pytest.importorskip("torch")
    import transformers

    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.schemes.lora import Lora
    from tests.export.tiny_models import randomize, save

    folder = tmp_path_factory.mktemp("broad")
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    randomize(model)
    save(model, folder / "model")
    scheme = Lora(rank=1, alpha=1.0, targets=("o_proj", "down_proj"))
    export_bundle(
        str(folder / "model"), folder / "bundle", ExportConfig(quant="int8", scheme=scheme)
    )
    return folder / "bundle"


def test_learning_mean_derivatives_is_in_the_plan(broad: Path, tmp_path: Path) -> None:
    """Without it the prediction was below the peak."""
    rows = [{"prompt": f"w{20 + n} w5", "completion": f" w{30 + n % 60} w6"} for n in range(64)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    args = [
        "tune", broad, "--data", data, "--method", "feedback", "--blocks", "all", "--steps", 2,
        "--max-time", 0, "--batch-size", 4, "--threads", 2, "--json",
    ]  # fmt: skip
    code, peak, out, err = run(COMMAND, *args, "--budget", "1GB", "-o", "wide", folder=tmp_path)
    assert code == 0, err
    predicted = json.loads(out)["predicted_bytes"]
    assert predicted - learning_bytes(HIDDEN, 2) < peak <= predicted
    budget = predicted * 25 // 24 + 2**20  # with the reserve
    code, peak, out, err = run(COMMAND, *args, "--budget", budget, "-o", "tight", folder=tmp_path)
    assert code == 0, err
    assert json.loads(out)["reliefs"] == []
    assert peak <= budget
