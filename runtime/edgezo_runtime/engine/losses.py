"""Scores of the model to one loss per example.

Scores come as float32 and are turned into float64 first: a finite difference of two losses is
small against them, and rounding to float16 or float32 in between would drown it. Scores that are
not finite give a loss that is not finite; the loop decides what to do about it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.engine.pair_losses import pair_gradients, pair_losses
from edgezo_runtime.errors import UsageError

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

NO_PREDICTION = -1
"""The prediction for scores one of which is not a number."""


def example_losses(batch: Batch, scores: npt.NDArray[np.float32]) -> Float64Array:
    """Loss of each example in each group.

    "labels", "candidates": -log softmax(class scores)[class]. "completion": minus the mean
    log-probability of the example's scored tokens. "pairs": as `pair_losses` says.

    Args:
        batch: the batch the scores are of.
        scores: (G, B, C) logits of the label words for "labels", embeddings for "pairs", else
            (G, T) log-probabilities of the batch's `targets`.

    Returns:
        (G, E) float64, nats.

    Raises:
        UsageError: `scores` has another shape, or an example has no class.

    Memory:
        A few float64 copies of `scores`.
    """
    if batch.kind == "pairs":
        return pair_losses(batch, scores)
    if batch.kind == "completion":
        return -_row_means(batch, scores)
    if (batch.labels < 0).any():
        raise UsageError("a loss of label words needs the class of every example")
    z = class_scores(batch, scores)
    chosen = np.broadcast_to(batch.labels[None, :, None], (z.shape[0], z.shape[1], 1))
    with np.errstate(invalid="ignore"):  # inf - inf is nan, as it should be
        z -= z.max(axis=2, keepdims=True)  # no overflow, and equal scores give exactly log C
        log_sum: Float64Array = np.log(np.exp(z).sum(axis=2))
        return log_sum - np.take_along_axis(z, chosen, axis=2)[:, :, 0]


def class_scores(batch: Batch, scores: npt.NDArray[np.float32]) -> Float64Array:
    """Score of each class.

    Args:
        batch: a batch of kind "labels" or "candidates".
        scores: as for `example_losses`.

    Returns:
        (G, E, C) float64: label logits, or mean log-probabilities of the label words' tokens.

    Raises:
        UsageError: `scores` has another shape, or the batch has no classes.
    """
    if batch.kind in ("completion", "pairs"):
        raise UsageError(f"a batch of kind {batch.kind} has no classes to score or predict")
    if batch.kind == "candidates":
        means = _row_means(batch, scores)
        return means.reshape(means.shape[0], batch.num_examples, -1)
    classes = 0 if batch.label_ids is None else batch.label_ids.size
    _check_shape(scores, (batch.num_rows, classes))
    return scores.astype(np.float64)


def score_gradients(batch: Batch, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Derivative of the sum of all examples' losses by every score.

        labels: softmax(z) - onehot(class);  a token of the class: the same through the mean

    Args:
        batch: the batch the scores are of.
        scores: (B, C) or (T,), those of one group; see `example_losses`.

    Returns:
        The shape of `scores`, float32.

    Raises:
        UsageError: as for `example_losses`.
    """
    if batch.kind == "pairs":
        return pair_gradients(batch, scores)
    if batch.kind == "completion":
        rows = np.full(batch.num_rows, -1.0)
    else:
        if (batch.labels < 0).any():
            raise UsageError("a loss of label words needs the class of every example")
        z = class_scores(batch, scores[None])[0]
        with np.errstate(invalid="ignore"):
            slopes = np.exp(z - z.max(axis=1, keepdims=True))
            slopes /= slopes.sum(axis=1, keepdims=True)
        slopes[np.arange(len(slopes)), batch.labels] -= 1
        if batch.kind == "labels":
            by_class: npt.NDArray[np.float32] = slopes.astype(np.float32)
            return by_class
        rows = slopes.ravel()
    places = batch.positions[:, 0]
    counts = np.bincount(places, minlength=batch.num_rows)
    by_token: npt.NDArray[np.float32] = (rows / counts)[places].astype(np.float32)
    return by_token


def expected_mistakes(
    losses: Float64Array, slopes: npt.NDArray[np.float32]
) -> tuple[Float64Array, npt.NDArray[np.float32]]:
    """Expected share of wrong answers, if answers are drawn by their probabilities.

        1 - p = 1 - exp(-loss)    d (1 - p) = p d loss

    Unlike the number of mistakes of the likeliest answers it has a derivative.

    Args:
        losses: (E,) of examples with label words of one token.
        slopes: (E, C) their derivatives.
    Returns:
        (E,) and (E, C): the shares, and their derivatives.
    """
    right = np.exp(-losses)
    return -np.expm1(-losses), slopes * right[:, None].astype(np.float32)


def predictions(batch: Batch, scores: npt.NDArray[np.float32]) -> Int64Array:
    """Class with the highest score; the first of equals.

    Args:
        batch: a batch of kind "labels" or "candidates".
        scores: as for `example_losses`.

    Returns:
        (G, E) int64; `NO_PREDICTION` where a score is not a number.

    Raises:
        UsageError: as for `class_scores`.
    """
    z = class_scores(batch, scores)
    best: Int64Array = np.argmax(z, axis=2).astype(np.int64)
    best[np.isnan(z).any(axis=2)] = NO_PREDICTION
    return best


def _row_means(batch: Batch, scores: npt.NDArray[np.float32]) -> Float64Array:
    """Mean over the scored tokens of each sequence, (G, B)."""
    _check_shape(scores, (batch.targets.size,))
    rows = batch.positions[:, 0]
    starts = np.searchsorted(rows, np.arange(batch.num_rows))
    counts = np.bincount(rows, minlength=batch.num_rows)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.add.reduceat(scores.astype(np.float64), starts, axis=1) / counts


def _check_shape(scores: npt.NDArray[np.float32], tail: tuple[int, ...]) -> None:
    if scores.ndim != len(tail) + 1 or scores.shape[1:] != tail:
        expected = ", ".join(map(str, ("G", *tail)))
        raise UsageError(f"scores have shape {scores.shape}, expected ({expected})")
