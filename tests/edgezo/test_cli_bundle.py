"""`edgezo bundle info`: numbers against the files themselves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.edgezo.conftest import Invoke, Tiny


def test_what_a_bundle_holds(invoke: Invoke, tiny: Tiny) -> None:
    done = invoke("bundle", "info", tiny.int8, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    files = {
        path.relative_to(tiny.int8).as_posix(): path
        for path in tiny.int8.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert found["files"].keys() == files.keys()
    for name, path in files.items():
        content = path.read_bytes()
        expected = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert found["files"][name] == expected
    parts = found["bytes_by_part"]
    assert found["bytes"] == sum(parts.values()) == sum(f.stat().st_size for f in files.values())
    assert parts["trainables"] == files["trainable.safetensors"].stat().st_size
    hidden, vocab = found["hidden_size"], found["vocab_size"]
    assert parts["embedding"] >= hidden * vocab  # 8 bits, and a scale per token
    assert parts["embedding"] < hidden * vocab + 4 * vocab + 4096
    assert parts["head"] >= hidden * vocab
    assert (found["quant"], found["group_size"], found["gradients"]) == ("int8", None, True)
    assert "weights in int8" in found["why_not_on_gpus"]
    assert (found["architecture"], found["task"]) == ("llama", "causal-lm")


def test_the_same_for_people(invoke: Invoke, tiny: Tiny) -> None:
    lines = invoke("bundle", "info", tiny.fp32).stdout.splitlines()
    words = {line.split()[0]: line for line in lines}
    assert "fp32" in words["weights"]
    assert "blocks" in words["size"]
    assert "exact and estimated" in words["gradients"]
    assert "exact and estimated" in words["GPUs"]
    digest = hashlib.sha256((tiny.fp32 / "weights.safetensors").read_bytes()).hexdigest()
    assert digest in words["sha256"]


def test_no_bundle(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("bundle", "info", tmp_path, code=None)
    assert done.exit_code == 1
    assert "manifest.json" in done.stderr
