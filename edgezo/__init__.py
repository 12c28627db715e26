"""Fine-tune language models on the device that runs them, with forward passes only.

Public names are loaded at first use, so ``import edgezo`` costs nothing:

    from edgezo import Tuner
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgezo._version import __version__

if TYPE_CHECKING:
    from edgezo_runtime.background import Background
    from edgezo_runtime.classify import Prediction
    from edgezo_runtime.config import TuneConfig
    from edgezo_runtime.errors import EdgezoError
    from edgezo_runtime.evaluate import Evaluation
    from edgezo_runtime.event_streams import EventStream, Subscription
    from edgezo_runtime.events import (
        CheckpointEvent,
        EndEvent,
        EvaluationEvent,
        Event,
        ExamplesEvent,
        GuardEvent,
        PauseEvent,
        PressureEvent,
        ResumeEvent,
        StepEvent,
    )
    from edgezo_runtime.generator import Writing
    from edgezo_runtime.governors import Battery, Foreground, Governor, Idle, Thermal
    from edgezo_runtime.objectives import Reward
    from edgezo_runtime.sampling import Sampling
    from edgezo_runtime.step_report import StepReport, TunerStatus
    from edgezo_runtime.tuner import Tuner

__all__ = [
    "Background",
    "Battery",
    "CheckpointEvent",
    "EdgezoError",
    "EndEvent",
    "Evaluation",
    "EvaluationEvent",
    "Event",
    "EventStream",
    "ExamplesEvent",
    "Foreground",
    "Governor",
    "GuardEvent",
    "Idle",
    "PauseEvent",
    "Prediction",
    "PressureEvent",
    "ResumeEvent",
    "Reward",
    "Sampling",
    "StepEvent",
    "StepReport",
    "Subscription",
    "Thermal",
    "TuneConfig",
    "Tuner",
    "TunerStatus",
    "Writing",
    "__version__",
]

_MODULES = {
    "background": ("Background",),
    "classify": ("Prediction",),
    "config": ("TuneConfig",),
    "errors": ("EdgezoError",),
    "evaluate": ("Evaluation",),
    "event_streams": ("EventStream", "Subscription"),
    "events": (
        "CheckpointEvent",
        "EndEvent",
        "EvaluationEvent",
        "Event",
        "ExamplesEvent",
        "GuardEvent",
        "PauseEvent",
        "PressureEvent",
        "ResumeEvent",
        "StepEvent",
    ),
    "generator": ("Writing",),
    "governors": ("Battery", "Foreground", "Governor", "Idle", "Thermal"),
    "objectives": ("Reward",),
    "sampling": ("Sampling",),
    "step_report": ("StepReport", "TunerStatus"),
    "tuner": ("Tuner",),
}
_HOMES = {name: f"edgezo_runtime.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load the public name from the module that owns it (PEP 562).

    Raises:
        AttributeError: edgezo has no such public name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'edgezo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
