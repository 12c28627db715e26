"""Runs as they are opened, by apps and by the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import (
    BundleError,
    DataError,
    UsageError,
)
from tests.runtime.app_runs import CONFIG, LABELS, ROWS, TEMPLATE, opened
from tests.runtime.tuner_runs import (
    BASE,
)

pytestmark = pytest.mark.usefixtures("unsynced")


def alter(path):
    """Change the last weight, and neither size nor name."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_altered_weights_are_not_tuned_on(bundle, examples, tmp_path):
    """The digests of the manifest were compared with those of the journal, never with the files."""
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.root, copy)
    with Tuner.open(copy, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
    alter(copy / "weights.safetensors")
    for run in ("run", "another"):
        with pytest.raises(BundleError, match=r"weights.safetensors: sha256"):
            Tuner.open(copy, examples, BASE, tmp_path / run)
    assert not (tmp_path / "another").exists()
    trusted = Bundle.open(copy, verify=False)
    with Tuner.open(trusted, examples, BASE, tmp_path / "run") as tuner:
        assert tuner.step_number == 1


def test_rows_in_memory_are_those_of_a_file(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    reader = RowReader(
        TextTokenizer.open(bundle.root, bundle.manifest.tokenizer), TEMPLATE, tuple(LABELS), 64
    )
    read = load_examples(file, reader.tokenizer, template=TEMPLATE, labels=LABELS, max_seq=64)
    taken = reader.take(ROWS)
    assert taken.tokens_sha256() == read.tokens_sha256()
    assert (taken.kind, taken.report) == (read.kind, read.report)
    with opened(bundle, tmp_path / "a") as one:
        first = [report.loss for report in one]
    with Tuner.open(
        bundle, file, CONFIG, tmp_path / "b", template=TEMPLATE, labels=LABELS
    ) as other:
        assert [report.loss for report in other] == first


def test_what_is_no_row_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for rows, message in (
        ([], "no rows"),
        ([*ROWS, {"text": "w1"}], "row 9: no field 'label'"),
        (["w1"], "row 1: found a string, expected a dict"),
        ([{"text": "w1", "label": 0, "more": {1}}], "row 1: not JSON"),
    ):
        with pytest.raises(DataError, match=message):
            Tuner.open(bundle, rows, CONFIG, tmp_path, template=TEMPLATE, labels=LABELS)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected a list of words"):
        Tuner.open(bundle, ROWS, CONFIG, tmp_path, template=TEMPLATE, labels=" w10")
    with opened(bundle, tmp_path) as tuner:
        with pytest.raises(DataError, match="row 1: no field 'text'"):
            tuner.add([{"label": 0}])
        with pytest.raises(DataError, match="label 'w12' is none of 'w10', 'w11'"):
            tuner.add([{"text": "w1", "label": "w12"}])


def test_a_budget_is_planned_for_rows_to_come(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path / "a", budget="4GB", max_seq=40) as tuner:
        assert tuner.run.engine.guard is not None
        assert tuner.run.engine.guard.budget_bytes == 4 * 10**9
        long = " ".join(["w9"] * 60)
        tuner.add([{"text": long, "label": 0}])
        assert tuner.examples.examples[-1].tokens.size == 40  # cut, as the run's own rows are
        tuner.step()
        tuner.classify(long)
    examples = tuner.examples
    other = Tuner.open(bundle, examples.first(8), CONFIG, tmp_path / "b", budget="4GB")
    with other, pytest.raises(DataError, match="a row of 40 tokens; the run is planned for"):
        other.add(examples)
    with pytest.raises(UsageError, match="unknown unit"):
        opened(bundle, tmp_path / "c", budget="4G")
