"""The best adapter of a run: against every state of the run, and after crashes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.evaluation.evaluate import evaluate
from edgezo_runtime.training.replay import replay
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import BASE, FIRST_ORDER, SIZES

pytestmark = pytest.mark.usefixtures("unsynced")

OVERFITTING = dataclasses.replace(
    FIRST_ORDER, first_order=2, first_order_lr=0.03, steps=12, batch_size=8, rollback=False
)
"""Learns eight rows by heart."""


@pytest.fixture
def valid(bundle: Bundle) -> ExampleSet:
    """Other rows, whose classes say nothing of those of the run."""
    return random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id, seed=5)


def tuned(
    bundle: Bundle,
    rows: ExampleSet,
    valid: ExampleSet,
    folder: Path,
    config: TuneConfig,
    until: int = 99,
) -> tuple[int, dict[str, Any]]:
    """Step and evaluate after every step, in a run that may be there; step and bits kept."""
    with Tuner.open(bundle, rows, config, folder, valid=valid) as tuner:
        if not tuner.keeper.records:
            tuner.evaluate()
        for report in tuner:
            tuner.evaluate()
            if report.step + 1 == until:
                break
        kept = tuner.kept_adapter()
        return kept.step, {name: value.tobytes() for name, value in kept.tensors.items()}


def losses_by_replay(bundle: Bundle, folder: Path, valid: ExampleSet, steps: int) -> list[float]:
    """The loss of the state after every step, 0 included, from the journal alone."""
    engine = Engine(bundle)
    try:
        found = []
        for step in range(steps + 1):
            params = replay(bundle, folder / "journal.bin", step=step).kept
            found.append(evaluate(engine, params, valid, scope="all").loss)
        return found
    finally:
        engine.close()


@pytest.mark.parametrize("config", [BASE, OVERFITTING], ids=["estimates", "overfitting"])
def test_the_kept_adapter_has_the_lowest_loss_of_all_states(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path, config: TuneConfig
) -> None:
    config = dataclasses.replace(config, scope="all")
    step, bits = tuned(bundle, examples, valid, tmp_path, config)
    losses = losses_by_replay(bundle, tmp_path, valid, config.steps)
    assert step == 1 + int(np.argmin(losses[1:]))
    expected = replay(bundle, tmp_path / "journal.bin", step=step).kept
    assert bits == {name: value.tobytes() for name, value in expected.items()}
    if config.first_order == 2:
        assert step < config.steps  # it overfits
    records = json.loads((tmp_path / "evaluations.json").read_text())["records"]
    assert [record["loss"] for record in records] == pytest.approx(losses)


@pytest.mark.slow
def test_a_run_that_is_opened_again_and_again_keeps_the_same(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    whole = tuned(bundle, examples, valid, tmp_path / "whole", OVERFITTING)
    for until in (2, 3, 7, 11):
        tuned(bundle, examples, valid, tmp_path / "cut", OVERFITTING, until)
    assert tuned(bundle, examples, valid, tmp_path / "cut", OVERFITTING) == whole


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["gone", "damaged", "of another step", "without snapshot"])
def test_a_lost_file_is_rebuilt_from_the_journal(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path, loss: str
) -> None:
    step, bits = tuned(bundle, examples, valid, tmp_path, OVERFITTING)
    best = tmp_path / "best.safetensors"
    if loss == "damaged":
        best.write_bytes(best.read_bytes()[:-1] + b"\x01")
    elif loss == "of another step":  # a crash came between this file and its record
        shutil.copytree(tmp_path, tmp_path / "other")
        early = dataclasses.replace(OVERFITTING, steps=1)
        shutil.rmtree(tmp_path / "other")
        tuned(bundle, examples, valid, tmp_path / "other", early)
        shutil.copy(tmp_path / "other" / best.name, best)
    else:
        best.unlink()
        if loss == "without snapshot":
            (tmp_path / "snapshot.safetensors").unlink()
    with Tuner.open(bundle, examples, OVERFITTING, tmp_path, valid=valid) as tuner:
        kept = tuner.kept_adapter()
        assert kept.step == step
        assert {name: value.tobytes() for name, value in kept.tensors.items()} == bits
        assert "best.safetensors" in kept.rebuilt
        assert tuner.kept_adapter().rebuilt == ""  # written again


@pytest.mark.slow
def test_the_last_one_is_kept_where_that_is_asked_for(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    best = tuned(bundle, examples, valid, tmp_path / "best", OVERFITTING)[0]
    last = dataclasses.replace(OVERFITTING, keep="last")
    assert tuned(bundle, examples, valid, tmp_path / "last", last)[0] == 12 != best
    assert not (tmp_path / "last/best.safetensors").exists()
    # `keep` is no part of the run: what was evaluated is known, and the journal has the rest.
    assert tuned(bundle, examples, valid, tmp_path / "last", OVERFITTING)[0] == best


@pytest.mark.slow
def test_the_last_one_is_kept_where_there_are_no_rows_any_more(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    """But what was evaluated is not forgotten."""
    best = tuned(bundle, examples, valid, tmp_path, OVERFITTING)[0]
    with Tuner.open(bundle, examples, OVERFITTING, tmp_path) as tuner:
        assert tuner.kept_adapter().step == 12 != best
    assert tuned(bundle, examples, valid, tmp_path, OVERFITTING)[0] == best


def test_the_last_one_is_kept_where_nothing_was_evaluated(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        list(tuner)
        kept = tuner.kept_adapter()
        assert (kept.step, kept.evaluation, kept.initial_is_best) == (6, None, False)
        with pytest.raises(UsageError, match="no rows for validation"):
            tuner.evaluate()


def test_other_rows_forget_what_was_evaluated(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    """Losses on different rows cannot be compared."""
    tuned(bundle, examples, valid, tmp_path, BASE, until=3)
    with Tuner.open(bundle, examples, BASE, tmp_path, valid=examples) as tuner:
        assert tuner.keeper.records == ()
        assert tuner.keeper.forgotten


def test_evaluations_on_rows_that_are_named_do_not_count(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples, BASE, tmp_path, valid=valid) as tuner:
        tuner.step()
        tuner.evaluate(examples)
        assert tuner.keeper.records == ()


def test_evaluations_of_steps_that_a_disk_lost_are_left_out(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    tuned(bundle, examples, valid, tmp_path / "short", BASE, until=2)
    tuned(bundle, examples, valid, tmp_path / "run", BASE)
    for name in ("journal.bin", "snapshot.safetensors"):
        shutil.copy(tmp_path / "short" / name, tmp_path / "run" / name)
    with Tuner.open(bundle, examples, BASE, tmp_path / "run", valid=valid) as tuner:
        assert [record.step for record in tuner.keeper.records] == [0, 1, 2]
        assert tuner.kept_adapter().step in (1, 2)


def test_evaluations_of_another_run_are_refused(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    tuned(bundle, examples, valid, tmp_path / "run", BASE, until=1)
    other = dataclasses.replace(BASE, seed=1)
    tuned(bundle, examples, valid, tmp_path / "other", other, until=1)
    shutil.copy(tmp_path / "other/evaluations.json", tmp_path / "run/evaluations.json")
    with pytest.raises(RunFileError, match="of another run; remove it"):
        Tuner.open(bundle, examples, BASE, tmp_path / "run", valid=valid)


def test_a_new_run_in_the_folder_begins_without_evaluations(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    tuned(bundle, examples, valid, tmp_path, BASE)
    (tmp_path / "journal.bin").unlink()
    with Tuner.open(bundle, examples, BASE, tmp_path, valid=valid) as tuner:
        assert tuner.keeper.records == ()
        assert not (tmp_path / "best.safetensors").exists()


def test_a_loss_that_is_no_number_is_no_candidate(
    bundle: Bundle, examples: ExampleSet, valid: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples, BASE, tmp_path, valid=valid) as tuner:
        tuner.step()
        found = dataclasses.replace(tuner.evaluate(), loss=float("nan"))
        tuner.step()
        tuner.keeper.note(2, 1.0, tuner.adapter(), found)
        assert [record.step for record in tuner.keeper.records] == [1]
