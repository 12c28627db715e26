"""What both sides of the comparison agree on; needs neither torch nor onnxruntime-training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch, make_batch
from tests.runtime.tiny_sets import random_set

QUANTS = {"llama": ("fp32", "int8"), "gpt2": ("fp32",), "roberta": ("fp32",)}
"""The bundles of every family; the blocks of the first two go on from earlier keys and values."""
FAMILIES = tuple(QUANTS)
FOLDER = Path(__file__).parents[2] / "build" / "training"
LR = 0.01
STEPS = 3
SIZES = (2, 5, 9, 21, 1, 13, 16, 17)


def tiny_batch(bundle: Bundle) -> Batch:
    """The batch of the comparison."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    return make_batch(examples, range(len(SIZES)))


def group(stored: npt.NDArray[np.float64], kind: str) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors stored as "kind:name", by name."""
    own = [name for name in stored if name.startswith(f"{kind}:")]
    return {name.partition(":")[2]: stored[name] for name in own}
