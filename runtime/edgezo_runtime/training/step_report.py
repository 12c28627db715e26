"""What a step did, and where a run stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did.

    Attributes:
        step: its number, from 0.
        loss: mean loss over the probes of the step, nats; not a number where one was not finite.
        projected_grad: root mean square of the projected gradients.
        lr: learning rate used.
        blocks: active blocks.
        rows: rows of the model evaluated.
        tokens: tokens evaluated in them, padding and what was kept not counted.
        elapsed_s: wall-clock seconds of the step.
        events: what the guard noticed, in words.
    """

    step: int
    loss: float
    projected_grad: float
    lr: float
    blocks: tuple[int, ...]
    rows: int
    tokens: int
    elapsed_s: float
    events: tuple[str, ...] = ()


Phase = Literal["ready", "running", "paused", "stopped", "done", "closed"]


@dataclass(frozen=True, slots=True)
class TunerStatus:
    """Where a run stands.

    Attributes:
        step: steps done.
        loss: mean loss of the last one, nats; not a number before there is one.
        elapsed_s: seconds that they took.
        fraction_done: share of the run that is over.
        phase: "ready" before the first step of this sitting, "running", "paused", "stopped",
            "done", or "closed".
        reason: why it is paused; empty where it is not.
        examples: rows to tune on, those that were added included.
    """

    step: int
    loss: float
    elapsed_s: float
    fraction_done: float
    phase: Phase
    reason: str = ""
    examples: int = 0
