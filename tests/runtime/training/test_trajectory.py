"""Records that are whole, and still no record of this run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.trajectory import Trajectory
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, run_to_the_end

CONFIGS = {
    "shared": method_config("zo-sgd", lr=0.01, eps=0.01, blocks="0", steps=2, batch_size=2),
    "private": method_config("auto", first_order=0, lr=0.01, eps=0.01, steps=2, batch_size=2),
    "several": method_config("zo-sgd-cons", lr=0.01, eps=0.01, steps=2, batch_size=2),
    "exact": method_config("auto", first_order=2, first_order_lr=0.01, steps=2, batch_size=2),
}


def recorded(bundle: Bundle, kind: str, folder: Path) -> list[StepRecord]:
    """Those of a short run."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    run_to_the_end(bundle, examples, CONFIGS[kind], folder)
    return list(read_journal(folder / "journal.bin").records)


CHANGES: dict[str, dict[str, Any]] = {
    "has another seed": {"seed": 1},
    "follows step 0": {"step": 5},
    "not finite": {"lr": np.nan},
    "does not estimate for": {"blocks": (0, 1, 7)},
}


@pytest.mark.parametrize("kind", ["shared", "private", "several"])
def test_records_that_do_not_fit_are_refused(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    first, second = recorded(bundle, kind, tmp_path)
    probes, rows = second.losses.shape
    wrong = {
        "not finite": [np.full((probes, rows), np.inf)],
        "losses of": [
            np.ones((probes, rows + 1)),
            np.ones((probes + 1, rows)),
            np.ones((1, rows)),
        ],
    }
    cases = [(text, dataclasses.replace(second, **change)) for text, change in CHANGES.items()]
    for text, losses in wrong.items():
        cases += [(text, dataclasses.replace(second, losses=value)) for value in losses]
    for text, record in cases:
        course = Trajectory(bundle, CONFIGS[kind], len(SIZES))
        course.replay(first)
        before = {name: value.copy() for name, value in course.state.theta.items()}
        with pytest.raises(RunFileError, match=text):
            course.replay(record)
        for name, value in course.state.theta.items():
            np.testing.assert_array_equal(value, before[name])


def test_a_gradient_of_another_length_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    first, second = recorded(bundle, "exact", tmp_path)
    course = Trajectory(bundle, CONFIGS["exact"], len(SIZES))
    course.replay(first)
    with pytest.raises(RunFileError, match="bytes in the journal, expected"):
        course.replay(dataclasses.replace(second, extra=second.extra[:-1]))
