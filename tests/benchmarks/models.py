"""The model under measurement: its bundles, and the same weights in float32 for torch."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgezo_runtime.bundle.bundle import Bundle

RANK = 8
ALPHA = 16.0
TARGETS = ("q_proj", "v_proj")
"""LoRA as MeZO's reference has it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Paths of the prepared models; None for those not requested."""

    int8: Path
    fp32: Path
    torch: Path
    w4: Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that name the model."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="Hugging Face id, folder or .gguf file (default: SmolLM2-135M-Instruct)",
    )
    parser.add_argument("--int8", type=Path, metavar="BUNDLE", help="use this int8 bundle")
    parser.add_argument(
        "--torch", type=Path, metavar="FOLDER", help="use these weights, read as float32, for torch"
    )
    parser.add_argument("--w4", type=Path, metavar="BUNDLE", help="use this w4 bundle")
    parser.add_argument("--fp32", type=Path, metavar="BUNDLE", help="use this fp32 bundle")


@contextmanager
def prepared(
    options: argparse.Namespace,
    *needed: Literal["int8", "fp32", "torch", "w4"],
    train: Literal["b", "ab"] = "b",
) -> Iterator[Prepared]:
    """Make the needed models that were not given, in a temporary folder.

    Args:
        options: those of `add_options`.
        needed: fields of `Prepared`.
        train: which LoRA factors train in bundles made here.
    """
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        paths = {kind: getattr(options, kind) for kind in ("int8", "fp32", "torch", "w4")}
        for kind in needed:
            if paths[kind] is None:
                paths[kind] = Path(temporary, kind)
                print(f"preparing the model ({kind})", flush=True)
                make = write_float32 if kind == "torch" else export
                make(model_name(options), paths[kind], kind, train)
        yield Prepared(**{kind: path or Path() for kind, path in paths.items()})


def model_name(options: argparse.Namespace) -> str:
    """--model, else the model edgezo tunes by default."""
    from edgezo_export.sources.hub import embedded_default

    return str(options.model) if options.model is not None else embedded_default()


def export(model: str, folder: Path, quant: str, train: str) -> None:
    """A bundle with LoRA of rank 8 on the query and value projections."""
    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.schemes.lora import Lora

    lora = Lora(rank=RANK, alpha=ALPHA, targets=TARGETS, lora_train=train)  # type: ignore[arg-type]
    export_bundle(model, folder, ExportConfig(quant=quant, scheme=lora))  # type: ignore[arg-type]


def write_float32(model: str, folder: Path, *_: str) -> None:
    """A folder that transformers reads, with every weight in float32."""
    import safetensors.numpy
    import torch
    import transformers

    from edgezo_export.sources.model_source import open_source

    source = open_source(model)
    folder.mkdir(parents=True)
    config = source.config_dict | {"dtype": "float32"}
    if "rope_theta" in config.get("rope_parameters", {}):  # where mlx-lm looks for it
        config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        empty: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            source.config
        )
    tensors = {name: source.read(name) for name, _ in empty.named_parameters()}
    file = folder / "model.safetensors"
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})


def describe(bundle: Path) -> str:
    """One line on a bundle."""
    manifest = Bundle.open(bundle).manifest
    scheme, info = manifest.scheme, manifest.model
    return (
        f"{info.id} {manifest.quant}, LoRA rank {scheme.rank} on {','.join(scheme.targets)}, "
        f"{'A and B train' if scheme.train == 'ab' else 'B trains'}"
    )
