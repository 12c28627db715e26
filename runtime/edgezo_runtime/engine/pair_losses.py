"""Losses of pairs of texts: each text must be nearest to its own partner.

    s_ij = a_i b_j / t;   L_i = -log softmax_j(s_ij)[i]

a and b are embeddings of length 1. The other second texts of a batch are the wrong answers, unless
they are the same text as the right one.

References:
    van den Oord et al. 2018, arXiv:1807.03748, eq. 4 (InfoNCE); Henderson et al. 2017,
    arXiv:1705.00652, section 4 (the other rows of a batch as wrong answers).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.errors import UsageError

TEMPERATURE = 0.05
"""t, the value that sentence-transformers has for its pairs."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def pair_losses(batch: Batch, scores: Float32) -> Float64:
    """Loss of each example in each group.

    Args:
        batch: of kind "pairs".
        scores: (G, 2 E, H) embeddings.
    Returns:
        (G, E) float64, nats.
    Raises:
        UsageError: `scores` has another shape.
    """
    first, second = _sides(batch, scores)
    same = same_texts(batch)
    return np.stack([losses_of(a, b, same) for a, b in zip(first, second, strict=True)])


def pair_gradients(batch: Batch, scores: Float32) -> Float32:
    """Derivative of the sum of all examples' losses by every number of the embeddings.

        dL/ds = softmax(s) - 1;  dL/da = dL/ds b / t;  dL/db = (dL/ds)' a / t

    Args:
        batch: of kind "pairs".
        scores: (2 E, H), those of one group.
    Raises:
        UsageError: as for `pair_losses`.
    """
    first, second = (side[0] for side in _sides(batch, scores[None]))
    z = similarities(first, second, same_texts(batch))
    with np.errstate(invalid="ignore"):
        slopes = np.exp(z - z.max(axis=1, keepdims=True))
        slopes /= slopes.sum(axis=1, keepdims=True)
    slopes[np.arange(len(slopes)), np.arange(len(slopes))] -= 1
    found = np.empty(scores.shape, np.float64)
    found[0::2], found[1::2] = slopes @ second / TEMPERATURE, slopes.T @ first / TEMPERATURE
    return found.astype(np.float32)


def losses_of(first: Float64, second: Float64, same: Bools) -> Float64:
    """Loss (E,) of pairs of embeddings (E, H); `same` as `same_texts` says."""
    z = similarities(first, second, same)
    with np.errstate(invalid="ignore"):
        z -= z.max(axis=1, keepdims=True)
        found: Float64 = np.log(np.exp(z).sum(axis=1)) - np.diagonal(z)
    return found


def similarities(first: Float64, second: Float64, same: Bools) -> Float64:
    """Similarity (E, E) of every first text with every second one, over t.

    That with a second text that is the right one word for word, in another pair, is -inf.
    """
    found: Float64 = first @ second.T / TEMPERATURE
    found[same] = -np.inf
    return found


def same_texts(batch: Batch) -> Bools:
    """Tell (E, E) where the second texts of two examples are the same."""
    rows, lengths = batch.input_ids[1::2], batch.lengths[1::2]
    texts = [row[:size].tobytes() for row, size in zip(rows, lengths, strict=True)]
    return repeated(texts)


def repeated(texts: list[bytes]) -> Bools:
    """Tell (E, E) where two texts are equal, but not the same one."""
    numbers = {text: number for number, text in enumerate(texts)}
    own = np.array([numbers[text] for text in texts], np.int64)
    found: Bools = own[:, None] == own
    np.fill_diagonal(found, False)
    return found


def _sides(batch: Batch, scores: Float32) -> tuple[Float64, Float64]:
    """First and second embeddings (G, E, H)."""
    width = 0 if batch.label_ids is None else batch.label_ids.size
    if scores.ndim != 3 or scores.shape[1:] != (batch.num_rows, width):
        raise UsageError(
            f"embeddings have shape {scores.shape}, expected (G, {batch.num_rows}, {width})"
        )
    wide = scores.astype(np.float64)
    return wide[:, 0::2], wide[:, 1::2]
