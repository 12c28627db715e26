from __future__ import annotations

from dataclasses import dataclass

import pytest
from transformers import PreTrainedModel

from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.trace.canonical import canonicalize
from edgezo_export.trace.partition import Partition, partition
from edgezo_export.trace.trace import Trace
from tests.bundles.traces import traced
from tests.export.tiny_models import MAX_SEQ, TINY, VOCAB


@dataclass(frozen=True, slots=True)
class Parts:
    """A tiny llama, its trace and the parts of that."""

    model: PreTrainedModel
    trace: Trace
    cut: Partition
    checkpoint: Checkpoint


@pytest.fixture(scope="session")
def parts() -> Parts:
    model = TINY["llama"].build()
    trace = traced(model.config, type(model), causal=True, max_seq=MAX_SEQ)
    canonicalize(trace.model)
    cut = partition(trace.model, trace.layers)
    return Parts(model, trace, cut, Checkpoint(trace.tied, trace.buffers, VOCAB))
