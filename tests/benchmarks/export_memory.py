"""Peak memory of an export: 1.1 billion random weights in bfloat16 shards, to int8.

    python tests/benchmarks/export_memory.py [MODEL FOLDER]

Without a folder a model of TinyLlama's shape is written first, tensor by tensor (2.2 GB on disk
and 1.1 GB for the bundle, both in a temporary folder). Prints peak resident memory and time of the
exporting process; exit code 1 when the peak is above the target.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TARGET_MB = 1200
SHARD_BYTES = 500_000_000
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CHILD = """
import json, resource, sys, time
from pathlib import Path
started = time.monotonic()
from edgezo_export.export import ExportConfig, export_bundle
manifest = export_bundle(sys.argv[1], Path(sys.argv[2]), ExportConfig(quant="int8"))
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6,
    "seconds": time.monotonic() - started,
    "bundle_mb": sum(file.bytes for file in manifest.files.values()) / 1e6,
}))
"""


def shapes(config: Mapping[str, Any] = CONFIG) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter of a Llama."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for name, rows in (("q", hidden), ("k", keys), ("v", keys), ("o", hidden)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (rows, hidden)
        yield f"{prefix}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{prefix}.mlp.up_proj.weight", (inner, hidden)
        yield f"{prefix}.mlp.down_proj.weight", (hidden, inner)
        yield f"{prefix}.input_layernorm.weight", (hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def write_model(folder: Path) -> None:
    """config.json, tokenizer and shards of at most `SHARD_BYTES`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_tokenizer(folder)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, shape in shapes():
        length = 2 * int(np.prod(shape))
        if size + length > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += length
    weight_map = {}
    for index, tensors in enumerate(shards):
        file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / file, tensors)
        weight_map |= {name: file for name, _ in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """Random weights of the size of those of a trained model."""
    header, position = {}, 0
    for name, shape in tensors:
        stop = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in tensors:
            values = generator.standard_normal(shape, np.float32)
            values *= shape[-1] ** -0.5
            values.view(np.uint16)[..., 1::2].tofile(file)  # the upper half of each float32


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of bytes."""
    import tokenizers
    import transformers

    words = {
        word: index
        for index, word in enumerate(["<unk>", "<s>", "</s>", *map(chr, range(33, 127))])
    }
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(words, [], unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Export in a child process and compare its peak with the target."""
    root = Path(__file__).resolve().parents[2]
    paths = [root, root / "export", root / "runtime"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary, "model")
        if not model.exists():
            write_model(model)
        output = subprocess.run(
            [sys.executable, "-c", CHILD, str(model), str(Path(temporary, "bundle"))],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    result = json.loads(output.splitlines()[-1])
    print(
        f"peak {result['peak_mb']:.0f} MB (target {TARGET_MB}), {result['seconds']:.0f} s, "
        f"bundle {result['bundle_mb']:.0f} MB"
    )
    return int(result["peak_mb"] > TARGET_MB)


if __name__ == "__main__":
    sys.exit(main())
