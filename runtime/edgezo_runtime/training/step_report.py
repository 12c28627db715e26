"""Reports of single steps, and the status of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgezo_runtime.methods.run_length import Limit


@dataclass(frozen=True, slots=True)
class StepReport:
    """The report of one step.

    Attributes:
        step: number of the step, from 0.
        loss: mean loss over the probes of the step, nats; not a number if a loss was not finite.
        projected_grad: root mean square of the projected gradients.
        lr: learning rate of the step.
        blocks: blocks that the step estimated gradients for.
        rows: rows that the model evaluated.
        tokens: tokens that the model evaluated, without padding and cached tokens.
        elapsed_s: wall-clock seconds of the step.
        events: rollbacks and plateaus, as text.
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

EndedBy = Limit | Literal["stop"]
"""Why no step of a run is left: its steps were taken, its time is over, or `stop` was called."""


@dataclass(frozen=True, slots=True)
class TunerStatus:
    """The status of a run.

    Attributes:
        step: number of steps that were taken.
        loss: mean loss of the last step, nats; not a number before the first step.
        elapsed_s: seconds that the steps took.
        fraction_done: share of the run that is over.
        phase: "ready" before the first step since the run was opened, "running", "paused",
            "stopped", "done", or "closed".
        reason: why the run is paused; empty if it is not.
        examples: number of examples, including those that were added.
        ended_by: why no step is left: "steps" (given, or from `epochs`), "time" or "stop"; None
            while a step is left, or if an error ended the steps.
        steps_planned: steps of the whole run; None if only time limits it.
    """

    step: int
    loss: float
    elapsed_s: float
    fraction_done: float
    phase: Phase
    reason: str = ""
    examples: int = 0
    ended_by: EndedBy | None = None
    steps_planned: int | None = None
