"""A block on rows that are longer than a chunk: one segment of their tokens at a time, in order.

Each segment continues from the keys and values of those before it, which live as long as the block
runs. They lie in arrays that have room for the whole row from the start: growing arrays would leave
the arena a hole of each size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgezo_runtime.bundle.manifest_types import PAST
from edgezo_runtime.engine.loaded_model import LoadedGraph, LoadedModel
from edgezo_runtime.engine.sessions import require_shape, run_graph


def segments_of(rows: int, tokens: int, limit: int) -> list[slice]:
    """Divide the tokens of rows so that a segment of all rows has about `limit` tokens.

    A segment has an even number of tokens, and at least two, as whole rows have: a single token
    would take the matrix-vector kernels, which round differently. Rows of an odd number of tokens,
    which only a model with an odd limit of its own leaves, are therefore not divided.
    """
    if rows * tokens <= limit or tokens % 2:
        return [slice(0, tokens)]
    size = max(2, limit // rows // 2 * 2)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def run_in_segments(
    graph: LoadedGraph, feed: Mapping[str, Any], segments: Sequence[slice], model: LoadedModel
) -> list[Any]:
    """Run a block that can continue from earlier tokens segment by segment.

    Args:
        graph: the block.
        feed: its inputs for whole rows, without those for earlier keys and values. The hidden
            states (R, S, H) are overwritten with the result.
        segments: the tokens of each run, in order.
        model: makes values of arrays.
    Returns:
        Keys and values (R, n, S, D), OrtValues.
    Raises:
        ShortOfMemoryError: a run was refused memory; the hidden states are lost.
    Memory:
        Keys and values twice, and the activations of one segment.
    """
    by_token = {
        name: model.array(feed[name]) for name in graph.by_token
    }  # views, nothing is copied
    states = by_token["hidden"]
    rows, tokens = states.shape[:2]
    assert graph.past is not None
    heads, width = graph.past
    past = [model.value(np.zeros((rows, heads, tokens, width), np.float32))] * 2
    for segment in segments:
        own = {name: model.value(array[:, segment]) for name, array in by_token.items()}
        own["past_lengths"] = model.value(np.full(rows, segment.start, np.int32))
        own |= zip(PAST, past, strict=True)
        hidden, *past = run_graph(graph.session, [graph.output, "key", "value"], {**feed, **own})
        shape = (rows, segment.stop - segment.start, states.shape[2])
        require_shape(hidden, shape, "hidden states of a segment")
        states[:, segment] = model.array(hidden)
    return past
