"""An estimator run on losses that a function gives, as steps and replays run it."""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.methods.estimators import (
    Estimator,
    EstimatorRun,
    Losses,
    Probe,
    StepInfo,
    Term,
)


def run_estimator(
    estimator: Estimator, info: StepInfo, evaluate: Callable[[list[Probe]], Losses]
) -> list[Term]:
    """Run an estimator and return the terms of a step's gradient.

    Args:
        estimator: the estimator.
        info: the step.
        evaluate: returns the losses of probes in the form of `record_losses`.
    """
    run = EstimatorRun(estimator, info)
    while run.probes:
        run.send(evaluate(run.probes))
    return run.terms
