"""Events of a run: one frozen dataclass per kind; `step` is the number of steps taken so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.evaluation.evaluate import Evaluation
from edgezo_runtime.training.step_report import EndedBy, Phase, StepReport


@dataclass(frozen=True, slots=True)
class StepEvent:
    """A step was taken."""

    step: int
    report: StepReport


@dataclass(frozen=True, slots=True)
class DivergenceEvent:
    """The run diverged and rolled back, or the loss no longer falls; `text` says which."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """Rows were evaluated; `data` is their source."""

    step: int
    data: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class PressureEvent:
    """Memory was short; `relief` says for what, and how the engine reacted."""

    step: int
    relief: str


@dataclass(frozen=True, slots=True)
class PauseEvent:
    """Steps wait; `reason` is that of the app or a governor. Repeated when the reason changes."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class ResumeEvent:
    """Steps are taken again."""

    step: int


@dataclass(frozen=True, slots=True)
class CheckpointEvent:
    """A snapshot of the whole state is on the disk, at `path`."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class ExamplesEvent:
    """Rows were added; the next step has `examples` examples in all."""

    step: int
    added: int
    examples: int


@dataclass(frozen=True, slots=True)
class EndEvent:
    """Steps have ended, for now; `error` is the error that ended them, or empty.

    `ended_by` is that of the status: the limit that was reached, or "stop".
    """

    step: int
    phase: Phase
    error: str = ""
    ended_by: EndedBy | None = None


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
"""Any event."""
