"""Short runs on a tiny bundle that are cut off, and all the bits that they have to end with.

Those that grow are given examples on their way, as an app would.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import DivergedError
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.estimators import StepInfo
from edgezo_runtime.training.step_evaluator import StepResult
from tests.runtime.growing_runs import BEGINNING, feed
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, bits

STEPS = 5
_COMMON = {"steps": STEPS, "max_time_s": 0, "batch_size": 2, "save_every": 2, "average": 0.9}
CONFIGS = {
    "two-point": method_config("zo-sgd", lr=0.01, eps=0.01, blocks="all", **_COMMON),
    "adam": method_config("zo-adam", lr=0.01, eps=0.01, blocks="all", **_COMMON),
    "per-example": method_config("auto", first_order=0, lr=0.01, eps=0.01, blocks="1", **_COMMON),
    "first_order": method_config(
        "zo-sgd", lr=0.01, eps=0.01, first_order=1, first_order_lr=0.01, **_COMMON
    ),
    "first-order": method_config("auto", first_order=2, first_order_lr=0.01, **_COMMON),
    "feedback": method_config("feedback", pairs=3, scope="answer", blocks="all", **_COMMON),
    "carried": method_config("feedback", scope="all", blocks="all", **{**_COMMON, "batch_size": 8}),
    "measured": method_config("zo-adam", lr="auto", eps="auto", schedule="random:1", **_COMMON),
    "returning": method_config("zo-adam", lr=0.01, eps=0.01, blocks="all", **_COMMON),
    "growing": method_config("zo-adam", lr=0.01, eps=0.01, blocks="all", **_COMMON),
    "growing-exact": method_config("auto", first_order=2, first_order_lr=0.01, **_COMMON),
}


def finish(
    bundle: Bundle, method: str, folder: Path, at_least: int = 0, examples_safe: bytes = b""
) -> dict[str, bytes]:
    """Begin or continue a run, and end it.

    Args:
        bundle: the model.
        method: a name of `CONFIGS`.
        folder: of the run.
        at_least: steps that must be there already.
        examples_safe: what the file of examples must begin with.

    Returns:
        All bits of its state, and the adapter's.
    """
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    grows = method.startswith("growing")
    begun_with = examples.first(BEGINNING) if grows else examples
    with Tuner.open(bundle, begun_with, CONFIGS[method], folder, threads=1) as tuner:
        assert tuner.step_number >= at_least, f"{at_least} steps were safe"
        if method == "returning":
            _lose_odd_steps(tuner)
        if examples_safe:
            assert tuner.run.folder.examples.read_bytes().startswith(examples_safe)
        while True:
            if grows:
                feed(tuner, examples)
            if tuner.done:
                break
            tuner.step()
        tuner.snapshot()
        adapter = make_adapter(
            tuner.run.folder.adapter, bundle, tuner.adapter(),
            steps=tuner.step_number, created_by="test", scope=tuner.run.scope,
        )  # fmt: skip
        adapter.save(tuner.run.folder.adapter)
        return bits(tuner)


def _lose_odd_steps(tuner: Tuner) -> None:
    """Let the losses of every second step be infinite: the run goes back each time."""
    evaluate = tuner.run.evaluator.evaluate

    def lossy(info: StepInfo, check: Callable[[], None]) -> StepResult:
        if info.step % 2:
            raise DivergedError("a loss is not finite")
        return evaluate(info, check)

    tuner.run.evaluator.evaluate = lossy  # type: ignore[method-assign]
