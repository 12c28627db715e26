"""What an app is told of a run: one frozen dataclass a kind, `step` is the steps done by then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.evaluation.evaluate import Evaluation
from edgezo_runtime.training.step_report import Phase, StepReport


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A step is done."""

    step: int
    report: StepReport


@dataclass(frozen=True, slots=True)
class DivergenceEvent:
    """A step diverged and was taken back, or the loss gets no further; `text` says which."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """Rows were evaluated; `data` is where they are from."""

    step: int
    data: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class PressureEvent:
    """Memory was short; `relief` says of what, and what was done."""

    step: int
    relief: str


@dataclass(frozen=True, slots=True)
class PauseEvent:
    """Steps wait; `reason` is the app's or a governor's. Comes again when the reason changes."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class ResumeEvent:
    """Steps go on."""

    step: int


@dataclass(frozen=True, slots=True)
class CheckpointEvent:
    """The state is on the disk as a whole; `path` is the snapshot."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class ExamplesEvent:
    """Rows were added; from the next step on there are `examples` in all."""

    step: int
    added: int
    examples: int


@dataclass(frozen=True, slots=True)
class EndEvent:
    """Steps have ended, for now; `error` is empty unless one ended them."""

    step: int
    phase: Phase
    error: str = ""


Event = (
    StepEvent
    | DivergenceEvent
    | EvaluationEvent
    | PressureEvent
    | PauseEvent
    | ResumeEvent
    | CheckpointEvent
    | ExamplesEvent
    | EndEvent
)
"""Any of them."""
