"""Loss and accuracy of a set of trainables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.batches import SequentialBatches
from edgezo_runtime.engine import Engine, SharedParams
from edgezo_runtime.example_set import ExampleSet
from edgezo_runtime.losses import example_losses, predictions
from edgezo_runtime.scope import Scope

Progress = Callable[[int, int], None]
"""Told the rows done and the rows in all."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Result on one set.

    Attributes:
        rows: examples.
        loss: mean over examples, nats.
        accuracy: share of right classes; None where there are none.
        predictions: (rows,) class of each example in file order, empty where there are none.
    """

    rows: int
    loss: float
    accuracy: float | None
    predictions: npt.NDArray[np.int64]


def evaluate(
    engine: Engine,
    params: Mapping[str, npt.NDArray[np.float32]],
    examples: ExampleSet,
    batch_size: int = 32,
    progress: Progress | None = None,
    *,
    scope: Scope,
) -> Evaluation:
    """Score every example once.

    Args:
        engine: the model.
        params: every trainable input by name, without the leading axis.
        examples: what to score.
        batch_size: examples a pass; the result does not depend on it.
        progress: told how far it is.
        scope: tokens the adapters act on.
    """
    shared = SharedParams(params)
    losses = np.empty(len(examples), np.float64)
    chosen = np.full(len(examples), -1, np.int64)
    labels = np.full(len(examples), -1, np.int64)
    done = 0
    for batch in SequentialBatches(examples, batch_size):
        scores = engine.score(batch, shared, scope=scope)
        losses[batch.ids] = example_losses(batch, scores)[0]
        labels[batch.ids] = batch.labels
        if batch.kind != "completion":
            chosen[batch.ids] = predictions(batch, scores)[0]
        done += batch.num_examples
        if progress is not None:
            progress(done, len(examples))
    classified = examples.kind != "completion"
    return Evaluation(
        rows=len(examples),
        loss=float(losses.mean()),
        accuracy=float((chosen == labels).mean()) if classified else None,
        predictions=chosen if classified else np.empty(0, np.int64),
    )
