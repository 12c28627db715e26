"""A bundle of two blocks whose graphs and weights are no such thing: for what reads around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from edgezo_runtime.bundle.bundle import (
    Binding,
    FileInfo,
    GraphInfo,
    Graphs,
    Manifest,
    ModelInfo,
    SchemeInfo,
    TensorInfo,
    TokenizerInfo,
    TrainableInfo,
    describe_files,
)

TRAINABLES = {
    f"layers.{block}.q.{role}": np.full(shape, block + 0.5, np.float32)
    for block in range(2)
    for role, shape in (("lora_A", (2, 8)), ("lora_B", (6, 2)))
}


def graph(
    file: str, trainables: tuple[str, ...] = (), outputs: tuple[str, ...] = ("out",)
) -> GraphInfo:
    """A graph that takes and makes little."""
    entry = "input_ids" if "prologue" in file else "hidden"
    hidden = TensorInfo(entry, "float32", ("R", "S", 8))
    extra = tuple(TensorInfo(name, "float32", ("P", 2, 2)) for name in trainables)
    made = tuple(TensorInfo(name, "float32", ("R", "S", 8)) for name in outputs)
    bound = tuple(Binding(name, name) for name in trainables)
    weight = TensorInfo("w", "float32", (2, 2))
    return GraphInfo(file, (hidden, *extra, weight), made, bound, (Binding("w", "weight", 1),))


def make_manifest(files: dict[str, FileInfo]) -> Manifest:
    """Its manifest."""
    names = list(TRAINABLES)
    return Manifest(
        created_by="edgezo 0.1.0",
        model=ModelInfo("owner/m", "llama", "LlamaForCausalLM", "causal-lm", 8, 50, 16, 2, True),
        quant="int8",
        graphs=Graphs(
            prologue=graph("graphs/prologue.onnx", outputs=("hidden", "cos")),
            blocks=(
                graph("graphs/block_000.onnx", tuple(names[:2])),
                graph("graphs/block_001.onnx", tuple(names[2:])),
            ),
            score_labels=graph("graphs/labels.onnx"),
            score_tokens=graph("graphs/tokens.onnx"),
            logits=graph("graphs/logits.onnx"),
        ),
        trainables=tuple(
            TrainableInfo(
                name, int(name.split(".")[1]), name[:-7], name[-6:], array.shape, name[-1] == "B"
            )
            for name, array in TRAINABLES.items()
        ),
        scheme=SchemeInfo("lora", ("q",), 2, 16.0, "b"),
        context=("cos",),
        tokenizer=TokenizerInfo("tokenizer.json", None, None, (2,), 0, None, None, False),
        base_config={"model_type": "llama", "nested": {"a": [1, 2.5, None, "ü"]}},
        files=files,
    )


FILES = {
    "weights.safetensors": b"w" * 3000,
    "tokenizer.json": b"{}",
    **{
        f"graphs/{name}.onnx": name.encode()
        for name in ("prologue", "block_000", "block_001", "labels", "tokens", "logits")
    },
}


def write_bundle(folder: Path) -> Path:
    """Write it to a new folder."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    save_file(TRAINABLES, folder / "trainable.safetensors")
    files = describe_files(folder, [*FILES, "trainable.safetensors"])
    (folder / "manifest.json").write_text(make_manifest(files).to_json(), encoding="utf-8")
    return folder
