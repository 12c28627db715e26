"""The class of rows, by their label words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.losses import class_scores
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class that a model gives a row.

    Attributes:
        label: word of the class that fits best, as it was given.
        index: of that class.
        probabilities: of every class, in class order; they sum to 1.
    """

    label: str
    index: int
    probabilities: tuple[float, ...]


def classify(
    engine: Engine,
    params: Mapping[str, npt.NDArray[np.float32]],
    examples: ExampleSet,
    batch_size: int = 32,
    *,
    scope: Scope,
) -> list[Prediction]:
    """Score the label words behind every row.

    Args:
        engine: the model.
        params: every trainable input by name, without the leading axis.
        examples: the rows; their own classes are not used.
        batch_size: rows per pass; the result does not depend on it.
        scope: tokens that the adapters act on.
    Raises:
        UsageError: the rows have no classes.
    """
    if not examples.classified:
        raise UsageError("rows without label words have no class; give a template and labels")
    shared = SharedParams(params)
    found: list[Prediction | None] = [None] * len(examples)
    for batch in SequentialBatches(examples, batch_size):
        scores = class_scores(batch, engine.score(batch, shared, scope=scope))[0]  # (E, C) float64
        for row, own in zip(batch.ids, scores, strict=True):
            best = int(np.argmax(own))
            shares = np.exp(own - own.max())
            shares /= shares.sum()
            word = examples.label_words[best]
            found[int(row)] = Prediction(word, best, tuple(map(float, shares)))
    return [prediction for prediction in found if prediction is not None]
