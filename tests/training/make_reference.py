"""What the tests with onnxruntime-training compare with, made where torch is installed.

    python -m tests.training.make_reference FOLDER

Writes tiny bundles and, in those of float32, reference.npz: tensors, torch's loss and gradients of
all blocks, of adapters on all tokens and on answers alone, and the last block's tensors after three
steps of AdamW by torch's gradient.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np
import torch

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.schemes import Lora
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch
from tests.export.tiny_models import TINY, save
from tests.runtime.torch_lora import TorchLora
from tests.training.reference import FAMILIES, LR, QUANTS, STEPS, tiny_batch


def make(name: str, folder: Path) -> None:
    """Write one family's bundles and reference."""
    kind = TINY[name]
    model = kind.build()
    with tempfile.TemporaryDirectory() as place:
        source = save(model, Path(place) / "model")
        scheme = Lora(rank=3, alpha=6.0, targets=kind.targets)
        for quant in QUANTS[name]:
            config = ExportConfig(quant=quant, scheme=scheme, force=True)
            export_bundle(str(source), folder / quant / name, config)
    bundle = Bundle.open(folder / "fp32" / name)
    generator = np.random.default_rng(1)
    theta = {
        key: (value + generator.normal(0, 0.1, value.shape)).astype(np.float32)
        for key, value in bundle.trainables().items()
    }
    initial = bundle.trainables()  # what the artifacts start from
    batch = tiny_batch(bundle)
    reference = TorchLora(model, bundle, "sdpa" if kind.encoder else "eager")
    loss, gradient = reference.gradient(theta, batch)
    _, of_answers = reference.gradient(theta, batch, answer=True)
    last = {i.name for i in bundle.manifest.trainables if i.block == 1 and i.trains}
    tuned, losses = tune(reference, batch, initial, last)
    np.savez(
        folder / "fp32" / name / "reference.npz",
        loss=loss,
        losses=losses,
        **{f"theta:{key}": value for key, value in theta.items()},
        **{f"gradient:{key}": value for key, value in gradient.items()},
        **{f"answers:{key}": value for key, value in of_answers.items()},
        **{f"tuned:{key}": value for key, value in tuned.items()},
    )


def tune(
    reference: TorchLora, batch: Batch, initial: Mapping[str, np.ndarray], names: Set[str]
) -> tuple[dict[str, np.ndarray], list[float]]:
    """AdamW as the artifacts take it, by the gradient of the sum of the losses.

        theta <- theta - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)

    eps meets the root before its correction, unlike in torch (Kingma, Ba 2015, end of section 2).
    """
    values = {name: value.astype(np.float64) for name, value in initial.items()}
    m, v = ({name: np.zeros(values[name].shape) for name in names} for _ in range(2))
    losses = []
    for step in range(1, STEPS + 1):
        loss, gradient = reference.gradient(values, batch)
        losses.append(loss)
        rate = LR * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for name in names:
            g = gradient[name] * batch.num_examples
            m[name] += 0.1 * (g - m[name])
            v[name] += 0.001 * (g**2 - v[name])
            values[name] -= rate * m[name] / (np.sqrt(v[name]) + 1e-6)
    return {name: values[name] for name in names}, losses


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads would wait for each other longer than so little work takes
    for family in FAMILIES:
        make(family, Path(sys.argv[1]))
