"""Records of runs that learn feedback, and the reading of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from edgezo_runtime.journal.step_record import RecordExtra, StepRecord
from edgezo_runtime.training.feedback_sites import FeedbackSite
from edgezo_runtime.training.feedback_slopes import SlopeCodec
from edgezo_runtime.training.feedback_state import FeedbackState
from edgezo_runtime.training.gradient_codec import GradientCodec

_SITES = (FeedbackSite(0, "input.down", "a", "b", (2, 5), (8, 2)),)
_MEANS = GradientCodec({"a": (5,)})


def read_feedback_record(data: bytes) -> None:
    """Read a record of pairs or of a gradient, and apply it."""
    layout: Any = SimpleNamespace(
        sites=_SITES,
        pairs=3,
        codec=GradientCodec({"a": (2, 5)}),
        means=_MEANS,
        slopes=SlopeCodec(_SITES),
    )
    state = FeedbackState(layout, 1.0)
    record = StepRecord.unpack(data)
    extra = RecordExtra.unpack(record.extra, state.extra_bytes(record)).gradient
    if state.has_pairs(record):
        state.observe(record, extra)
    else:
        layout.codec.unpack(extra)


def feedback_records() -> tuple[bytes, ...]:
    """A record of pairs, and one of a gradient."""
    pairs = np.linspace(-1, 1, 16).reshape(4, 4)
    means = _MEANS.pack({"a": np.ones(5, np.float32)}) + np.ones(1, "<f4").tobytes()
    gradient = GradientCodec({"a": (2, 5)}).pack({"a": np.ones((2, 5), np.float32)})
    return tuple(
        StepRecord(0, 9, 0.1, (), losses, RecordExtra(1.0, extra, 0).pack()).pack()
        for losses, extra in ((pairs, means), (pairs[:1], gradient))
    )
