"""`--long` and `--train-on`: what rows lose is counted, and a run keeps both settings."""

from __future__ import annotations

import json
from pathlib import Path

from tests.edgezo.conftest import Invoke, Tiny, write_rows

LOST = {
    "rows": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "prompt_rows": 0,
    "completion_rows": 0,
    "dropped_rows": 0,
}
LONG = " ".join(f"w{number}" for number in range(20, 40))


def test_rows_that_are_left_out_have_no_predictions(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    rows = [
        {"text": "w20 w21", "label": 0},
        {"text": LONG, "label": 1},
        {"text": "w60", "label": 1},
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    args = ["eval", tiny.fp32, "--data", data, "--template", "{text} w4", "--label", " w10",
            "--label", " w11", "--max-seq", "8", "--predictions", "p.jsonl"]  # fmt: skip
    result = json.loads(invoke(*args, "--long", "drop", "--json").stdout)
    assert result["rows"] == 2
    assert result["long_rows"] == {**LOST, "dropped_rows": 1}
    assert result["warnings"] == [
        "1 of 3 rows are longer than 8 tokens and are left out; raise `max_seq` (this model takes "
        "at most 64)"
    ]
    told = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [row["line"] for row in told] == [1, 3]
    cut = json.loads(invoke(*args, "--json").stdout)
    assert cut["rows"] == 3
    assert cut["long_rows"] == {**LOST, "rows": 1, "prompt_rows": 1, "prompt_tokens": 13}


def test_a_run_keeps_how_its_rows_are_read(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    rows = [{"prompt": "w20 w5", "completion": " w21"}, {"prompt": LONG, "completion": " w22 w6"}]
    data = write_rows(tmp_path / "rows.jsonl", [*rows, rows[0]])
    args = ["tune", tiny.fp32, "--budget", "8GB", "--data", data, "--steps", "1", "--threads", "1",
            "--batch-size", "2", "--max-seq", "8", "--method", "zo-sgd", "--lr", "0.01",
            "--eps", "0.1", "-o", "run"]  # fmt: skip
    chosen = ["--long", "drop", "--train-on", "last"]
    invoke(*args, *chosen)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["long"], config["train_on"]) == ("drop", "last")
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert receipt["long_rows"] == {"train": {**LOST, "dropped_rows": 1}}
    other = invoke(*args, "--long", "truncate", code=None)
    assert other.exit_code == 1
    assert "cannot be resumed, the run was started with other inputs" in other.stderr
    found = json.loads(
        invoke("eval", tiny.fp32, "--data", data, "--adapter", "run", "--json").stdout
    )
    assert (found["rows"], found["long"], found["train_on"]) == (2, "drop", "last")
    assert found["origins"]["long"] == "adapter"
