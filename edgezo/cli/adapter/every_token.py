"""What a program gets that applies an adapter for answers to every token, measured by edgezo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgezo.cli.adapter.export_job import ExportJob
from edgezo.cli.adapter.training_rows import RowsGoneError, training_rows
from edgezo.wording import percent
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.evaluation.evaluate import evaluate

_ROWS = 64


def score_every_token(job: ExportJob, tell: Callable[[int, int], None]) -> dict[str, Any] | None:
    """Score the first rows of the training data, with the adapter on answers and on every token.

    Args:
        job: the export.
        tell: given how many rows have been scored, each counted twice, and how many there are.
    Returns:
        Loss and accuracy of both; None for an adapter that acts on every token anyway, and where
        the rows are not known.
    Raises:
        EdgezoError: the rows or the bundle cannot be read.
    """
    if job.adapter.info.scope == "all":
        return None
    bundle = job.bundle()
    try:
        examples = training_rows(job, bundle, _ROWS)
    except RowsGoneError:  # the proof has said so
        return None
    if examples is None:
        return None
    params = job.adapter.params(bundle)
    scopes: tuple[Scope, ...] = ("answer", "all")
    with_scope = {}
    for number, scope in enumerate(scopes):

        def show(done: int, total: int, before: int = number * len(examples)) -> None:
            tell(before + done, len(scopes) * total)

        with_scope[scope] = evaluate(Engine(bundle), params, examples, progress=show, scope=scope)
    return {
        "rows": len(examples),
        **{
            scope: {"loss": found.loss, "accuracy": found.accuracy}
            for scope, found in with_scope.items()
        },
    }


def every_token_rows(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """The figures, for people; nothing if there are none."""
    if found is None:
        return []
    own, every = found["answer"], found["all"]
    text = f"loss {every['loss']:.4f} in place of {own['loss']:.4f}"
    if own["accuracy"] is not None:
        text = (
            f"accuracy {percent(every['accuracy'])} in place of {percent(own['accuracy'])}, {text}"
        )
    return [("everywhere", f"{text}, on every token ({found['rows']} rows of the training data)")]
