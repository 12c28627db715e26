"""Fine-tune language models on the device that runs them, within a memory budget.

    from edgezo import Tuner

It owns the command line and the public names, which are loaded at first use, so ``import edgezo``
costs nothing. It must not compute: `edgezo_runtime` and `edgezo_export` do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgezo._version import __version__

if TYPE_CHECKING:
    from edgezo.cli.tune.default_bundle import default_bundle
    from edgezo_runtime.app.background import Background
    from edgezo_runtime.app.best_keeper import KeptAdapter
    from edgezo_runtime.app.event_streams import EventStream, Subscription
    from edgezo_runtime.app.events import (
        CheckpointEvent,
        DivergenceEvent,
        EndEvent,
        EvaluationEvent,
        Event,
        ExamplesEvent,
        PauseEvent,
        PressureEvent,
        ResumeEvent,
        StepEvent,
    )
    from edgezo_runtime.app.tuner import Tuner
    from edgezo_runtime.config import TuneConfig
    from edgezo_runtime.errors import EdgezoError
    from edgezo_runtime.evaluation.classify import Prediction
    from edgezo_runtime.evaluation.evaluate import Evaluation
    from edgezo_runtime.evaluation.objectives import Reward
    from edgezo_runtime.generation.generator import GenerationConfig
    from edgezo_runtime.generation.sampling import Sampling
    from edgezo_runtime.governors import Battery, Foreground, Governor, Idle, Thermal
    from edgezo_runtime.training.step_report import StepReport, TunerStatus

__all__ = [
    "Background",
    "Battery",
    "CheckpointEvent",
    "DivergenceEvent",
    "EdgezoError",
    "EndEvent",
    "Evaluation",
    "EvaluationEvent",
    "Event",
    "EventStream",
    "ExamplesEvent",
    "Foreground",
    "GenerationConfig",
    "Governor",
    "Idle",
    "KeptAdapter",
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
    "__version__",
    "default_bundle",
]

_MODULES = {
    "edgezo.cli.tune.default_bundle": ("default_bundle",),
    "edgezo_runtime.app.background": ("Background",),
    "edgezo_runtime.app.best_keeper": ("KeptAdapter",),
    "edgezo_runtime.app.event_streams": ("EventStream", "Subscription"),
    "edgezo_runtime.app.events": (
        "CheckpointEvent",
        "DivergenceEvent",
        "EndEvent",
        "EvaluationEvent",
        "Event",
        "ExamplesEvent",
        "PauseEvent",
        "PressureEvent",
        "ResumeEvent",
        "StepEvent",
    ),
    "edgezo_runtime.app.tuner": ("Tuner",),
    "edgezo_runtime.config": ("TuneConfig",),
    "edgezo_runtime.errors": ("EdgezoError",),
    "edgezo_runtime.evaluation.classify": ("Prediction",),
    "edgezo_runtime.evaluation.evaluate": ("Evaluation",),
    "edgezo_runtime.evaluation.objectives": ("Reward",),
    "edgezo_runtime.generation.generator": ("GenerationConfig",),
    "edgezo_runtime.generation.sampling": ("Sampling",),
    "edgezo_runtime.governors": ("Battery", "Foreground", "Governor", "Idle", "Thermal"),
    "edgezo_runtime.training.step_report": ("StepReport", "TunerStatus"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


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
