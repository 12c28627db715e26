"""F1 of predicted classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def f1_by_class(labels: Int64, predictions: Int64, num_classes: int) -> list[float | None]:
    """F1 of every class: 2 tp / (2 tp + fp + fn).

    Args:
        labels: (N,) right classes.
        predictions: (N,) chosen ones.
        num_classes: C.
    Returns:
        C numbers; None for a class that is neither a label nor a prediction.
    """
    found: list[float | None] = []
    for number in range(num_classes):
        both = int(((labels == number) & (predictions == number)).sum())
        either = int((labels == number).sum() + (predictions == number).sum())
        found.append(2 * both / either if either else None)
    return found


def macro_f1(labels: Int64, predictions: Int64, num_classes: int) -> float:
    """Mean of the F1 of all classes that occur, each counted once."""
    known = [f1 for f1 in f1_by_class(labels, predictions, num_classes) if f1 is not None]
    return sum(known) / len(known) if known else 0.0
