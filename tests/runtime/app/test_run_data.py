"""Rows of a run: held out where that is asked for, and the same ones when it resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.app.run_data import HOLD_OUT, RunData, held_out
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import OtherInputsError
from edgezo_runtime.journal.run_folder import RunFolder
from tests.runtime.app_runs import CONFIG, LABELS, TEMPLATE
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import BASE, bits

pytestmark = pytest.mark.usefixtures("unsynced")

MANY = [{"text": f"w{20 + n} w{40 + n % 30}", "label": n % 2} for n in range(70)]


def opened_with(
    bundle: Bundle, folder: Path, valid: Any = None, rows: Any = MANY, **options: Any
) -> Tuner:
    """A tuner of rows in memory."""
    settings = {"template": TEMPLATE, "labels": LABELS, **options}
    return Tuner.open(bundle, rows, CONFIG, folder, valid=valid, **settings)


def tokens(rows: ExampleSet | None) -> set[bytes]:
    assert rows is not None
    return {example.tokens.tobytes() for example in rows}


def test_an_app_holds_rows_out_where_it_asks(bundle: Bundle, tmp_path: Path) -> None:
    with opened_with(bundle, tmp_path / "all") as tuner:
        assert (len(tuner.examples), tuner.keeper.rows) == (70, None)
        everything = tokens(tuner.examples)
    with opened_with(bundle, tmp_path / "run", "auto") as tuner:
        own, rows = tokens(tuner.examples), tokens(tuner.keeper.rows)
        assert (len(own), len(rows)) == (50, 20)
        assert own | rows == everything
        assert tuner.evaluate().rows == 20


def test_rows_that_are_added_are_tuned_on(bundle: Bundle, tmp_path: Path) -> None:
    with opened_with(bundle, tmp_path, "auto") as tuner:
        rows = tokens(tuner.keeper.rows)
        tuner.step()
        assert tuner.add([{"text": f"w{n} w5", "label": 1} for n in range(5, 45)]) == 90
        list(tuner)
        expected = bits(tuner)
    with opened_with(bundle, tmp_path, "auto") as tuner:  # the same command opens it again
        assert (len(tuner.examples), tokens(tuner.keeper.rows)) == (90, rows)
        assert bits(tuner) == expected


def test_a_resumed_run_keeps_what_it_began_with(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened_with(bundle, tmp_path / "with", "auto") as tuner:
        tuner.step()
    with opened_with(bundle, tmp_path / "with") as tuner:  # the app no longer asks
        assert (len(tuner.examples), tuner.keeper.rows) == (50, None)
    with opened_with(bundle, tmp_path / "with", MANY[:9]) as tuner:
        assert tuner.keeper.rows is not None
        assert (len(tuner.examples), len(tuner.keeper.rows)) == (50, 9)
    with opened_with(bundle, tmp_path / "without") as tuner:  # as every run of earlier versions
        tuner.step()
    with opened_with(bundle, tmp_path / "without", "auto") as tuner:
        assert (len(tuner.examples), tuner.keeper.rows) == (70, None)
    assert "the run was begun without held-out rows; give `valid`" in caplog.text


def test_other_rows_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with opened_with(bundle, tmp_path, "auto") as tuner:
        tuner.step()
    changed = [*MANY[:-1], {"text": "w9", "label": 0}]
    with pytest.raises(OtherInputsError, match="tokens was"):
        opened_with(bundle, tmp_path, "auto", changed)


def test_rows_for_validation_may_be_a_folder(bundle: Bundle, tmp_path: Path) -> None:
    """Pins a folder whose rows to tune on were read in place of those for validation."""
    (tmp_path / "rows").mkdir()
    for split, count in (("train", 7), ("valid", 3)):
        text = "".join(f'{{"text": "w{n}", "label": {n % 2}}}\n' for n in range(20, 20 + count))
        (tmp_path / "rows" / f"{split}.jsonl").write_text(text)
    with opened_with(bundle, tmp_path / "run", tmp_path / "rows", tmp_path / "rows") as tuner:
        assert tuner.keeper.rows is not None
        assert (len(tuner.examples), len(tuner.keeper.rows)) == (7, 3)


@pytest.mark.parametrize("given", ["rows", "none", "hold out"])
def test_tokens_are_held_out_like_rows(tmp_path: Path, given: str) -> None:
    examples = random_set("labels", [5] * 80, 0)
    others: dict[str, Any] = {"test": examples}
    if given != "none":
        others["valid"] = examples if given == "rows" else HOLD_OUT
    train, found, reason = held_out(
        RunData(examples, others), examples, BASE, RunFolder(tmp_path), resume=True
    )
    assert (len(train), reason) == (60 if given == "hold out" else 80, "")
    assert {*found} == ({"test"} if given == "none" else {"test", "valid"})
    other_seed = dataclasses.replace(BASE, seed=1)
    other, _, _ = held_out(
        RunData(examples, others), examples, other_seed, RunFolder(tmp_path), resume=True
    )
    assert isinstance(train, ExampleSet)
    assert isinstance(other, ExampleSet)
    assert (train.tokens_sha256() != other.tokens_sha256()) is (given == "hold out")
