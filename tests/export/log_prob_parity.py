"""Log-probabilities of a bundle beside those of the model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from tests.export.bundle_runner import BundleRunner

Array = np.ndarray[Any, np.dtype[np.float32]]


def own_log_probs(runner: BundleRunner, ids: Sequence[int]) -> Array:
    """Log-probability of every next token, by the bundle."""
    row = np.array([ids])
    mask = np.ones_like(row) if runner.manifest.model.task == "masked-lm" else None
    *_, hidden = runner.hidden_states(row, mask)
    positions = np.array([(0, place) for place in range(len(ids))])
    return runner.log_probs(hidden, positions, np.roll(row[0], -1))


def torch_log_probs(model: PreTrainedModel, ids: Sequence[int]) -> Array:
    """The same by the model."""
    with torch.inference_mode():
        logits = model(torch.tensor([list(ids)])).logits[0]
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(np.roll(ids, -1))]
    return chosen.numpy()
