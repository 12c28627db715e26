"""Runs whose examples come while they go on, at steps that are known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, bits

BEGINNING = 3
"""Examples a run begins with: fewer than a batch."""

ARRIVALS = {0: 4, 2: 7, 3: 8}
"""Examples there are from a step on."""

CONFIG: dict[str, Any] = {
    "steps": 7, "max_time_s": 0, "batch_size": 4, "save_every": 3, "average": 0.9,
}  # fmt: skip


def all_examples(bundle: Bundle) -> ExampleSet:
    """Those there are in the end."""
    return random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)


def feed(tuner: Tuner, examples: ExampleSet) -> None:
    """Add what has come by now and is not there yet, one after the other."""
    due = max((count for step, count in ARRIVALS.items() if step <= tuner.step_number), default=0)
    while len(tuner.examples) < due:
        number = len(tuner.examples)
        tuner.add(slice_of(examples, number, number + 1))


def slice_of(examples: ExampleSet, start: int, end: int) -> ExampleSet:
    """Some of the examples, as a set of their own."""
    return ExampleSet(
        examples.kind, examples.examples[start:end], examples.path, examples.sha256,
        examples.max_seq, examples.pad_id, examples.report, examples.label_words,
        examples.label_tokens,
    )  # fmt: skip


def grow(
    bundle: Bundle, config: TuneConfig, folder: Path, until: int = 10**6, **options: Any
) -> dict[str, bytes]:
    """Begin or continue a run, and add the examples when they come."""
    everything = all_examples(bundle)
    with Tuner.open(bundle, everything.first(BEGINNING), config, folder, **options) as tuner:
        feed(tuner, everything)
        while not tuner.done and tuner.step_number < until:
            tuner.step()
            feed(tuner, everything)
        return bits(tuner)
