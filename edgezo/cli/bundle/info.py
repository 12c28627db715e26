"""`edgezo bundle info`: what a bundle holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgezo.cli.terminal.output import harmless, json_option, print_result, table

if TYPE_CHECKING:
    from edgezo_runtime.bundle.bundle import Bundle


@click.command(name="info", short_help="Show what a bundle holds.")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE holds: model, form and sizes of weights, trainables, tokenizer, digests.

    Digests are those of the manifest; files are checked against them when the bundle is used.
    """
    from edgezo_runtime.bundle.bundle import Bundle

    opened = Bundle.open(bundle)
    found = _described(opened, bundle)
    print_result(found, table(_lines(found)), as_json)


def _described(opened: Bundle, bundle: Path) -> dict[str, Any]:
    from edgezo_runtime.bundle.contents import sizes_by_part
    from edgezo_runtime.engine.block_forms import BackwardForms

    manifest = opened.manifest
    model, scheme, tokenizer = manifest.model, manifest.scheme, manifest.tokenizer
    return {
        "bundle": str(bundle),
        "created_by": manifest.created_by,
        "model": model.id,
        "architecture": model.architecture,
        "class": model.class_name,
        "task": model.task,
        "blocks": model.num_blocks,
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        "max_seq": model.max_seq,
        "tied_embeddings": model.tied_embeddings,
        "quant": manifest.quant,
        "group_size": manifest.group_size,
        "bytes": opened.size_bytes,
        "bytes_by_part": sizes_by_part(opened),
        "trainable": scheme.kind,
        "targets": list(scheme.targets),
        "rank": scheme.rank,
        "alpha": scheme.alpha,
        "trainable_parameters": sum(math.prod(t.shape) for t in manifest.trainables if t.trains),
        "gradients": not isinstance(manifest.backward, str),
        "why_not_on_gpus": manifest.gpu if isinstance(manifest.gpu, str) else None,
        "why_no_gradients_on_gpus": BackwardForms.of(manifest, "gpu").reason,
        "generates": manifest.graphs.logits is not None,
        "bos_id": tokenizer.bos_id,
        "eos_ids": list(tokenizer.eos_ids),
        "pad_id": tokenizer.pad_id,
        "chat_template": tokenizer.chat_template is not None,
        "files": {n: {"bytes": i.bytes, "sha256": i.sha256} for n, i in manifest.files.items()},
    }


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    from edgezo_runtime.bundle.bundle import WEIGHTS_FILE
    from edgezo_runtime.system.sizes import format_size

    groups = f", groups of {found['group_size']}" if found["group_size"] else ""
    sizes = found["bytes_by_part"]
    parts = ", ".join(f"{name} {format_size(size)}" for name, size in sizes.items() if size)
    targets = f" in {', '.join(found['targets'])}" if found["targets"] else ""
    rank = f", rank {found['rank']}" if found["rank"] else ""
    template = "chat template" if found["chat_template"] else "no chat template"
    tied = ", the head is the embedding" if found["tied_embeddings"] else ""
    rows = [
        ("bundle", found["bundle"]),
        ("made by", found["created_by"]),
        ("model", f"{found['model']} ({found['architecture']}, {found['task']})"),
        (
            "shape",
            f"{found['blocks']} blocks, hidden size {found['hidden_size']:,}, "
            f"{found['vocab_size']:,} tokens{tied}, rows of up to {found['max_seq']:,} tokens",
        ),
        ("weights", f"{found['quant']}{groups}"),
        ("size", f"{format_size(found['bytes'])}: {parts}"),
        (
            "trainables",
            f"{found['trainable_parameters']:,} numbers, {found['trainable']}{targets}{rank}",
        ),
        ("gradients", "exact and estimated" if found["gradients"] else "estimated only"),
        ("GPUs", _on_gpus(found)),
        ("tokenizer", f"{template}, end tokens {', '.join(map(str, found['eos_ids'])) or 'none'}"),
        ("sha256", f"{found['files'][WEIGHTS_FILE]['sha256']}  {WEIGHTS_FILE}"),
    ]
    return [(name, harmless(value)) for name, value in rows]


def _on_gpus(found: dict[str, Any]) -> str:
    """What a bundle does on GPUs."""
    if (reason := found["why_not_on_gpus"]) is not None:
        return f"no: {reason}"
    if (reason := found["why_no_gradients_on_gpus"]) is not None:
        return f"gradients estimated only: {reason}"
    return "exact and estimated gradients"
