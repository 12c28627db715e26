"""Every example runs, on a tiny model, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.tiny_tokenizer import byte_tokenizer

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two blocks that spells, exported."""
    transformers = pytest.importorskip("transformers")
    from edgezo_export.export import export_bundle

    folder = tmp_path_factory.mktemp("tiny")
    core = byte_tokenizer().core
    config = transformers.LlamaConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder / "model")
    export_bundle(str(folder / "model"), folder / "bundle")
    return folder / "bundle"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path, bundle: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "export", "runtime"))
    done = subprocess.run(
        [sys.executable, str(example), str(bundle)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3


def test_there_are_examples() -> None:
    assert EXAMPLES
