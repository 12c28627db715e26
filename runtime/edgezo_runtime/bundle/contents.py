"""What a bundle holds, in bytes by part."""

from __future__ import annotations

from edgezo_runtime.bundle.bundle import TRAINABLE_FILE, WEIGHTS_FILE, Bundle
from edgezo_runtime.bundle.manifest_types import GraphInfo
from edgezo_runtime.bundle.weights import read_header


def sizes_by_part(bundle: Bundle) -> dict[str, int]:
    """Count the bytes of the parts of a bundle; they add up to `Bundle.size_bytes`.

    embedding   weights of the prologue; a head that is the embedding is in it
    blocks      weights of the blocks
    head        weights of scorers and logits that the prologue does not read
    padding     of the weights file, its header included
    trainables  initial values of what trains
    graphs      the ONNX files
    tokenizer   tokenizer and chat template

    Raises:
        BundleError: the header of the weights cannot be read.
    """
    manifest = bundle.manifest
    stored = read_header(bundle.path(WEIGHTS_FILE))
    graphs = manifest.graphs
    heads = [graphs.score_labels, graphs.score_tokens, *([graphs.logits] if graphs.logits else [])]
    taken: set[str] = set()
    found: dict[str, int] = {}

    def add(part: str, *read: GraphInfo) -> None:
        own = {binding.tensor for graph in read for binding in graph.weights} - taken
        found[part] = sum(stored[name].length for name in own if name in stored)
        taken.update(own)

    add("embedding", graphs.prologue)
    add("blocks", *graphs.blocks)
    add("head", *heads)
    sizes = {name: info.bytes for name, info in manifest.files.items()}
    found["padding"] = sizes.pop(WEIGHTS_FILE, 0) - sum(found.values())
    found["trainables"] = sizes.pop(TRAINABLE_FILE, 0)
    found["graphs"] = sum(sizes.pop(name) for name in list(sizes) if name.endswith(".onnx"))
    found["tokenizer"] = sum(sizes.values())
    return found
