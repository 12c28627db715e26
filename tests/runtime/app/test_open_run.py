"""Runs as they are opened, by apps and by the command line."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.cli.tune.inputs import TuneInputs
from edgezo.cli.tune.job import Job, prepare
from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.app.open_run import open_run
from edgezo_runtime.app.run_data import RunData
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import BundleError, DataError, InterruptedRunError, UsageError
from edgezo_runtime.journal.run_folder import RunFolder
from tests.runtime.app_runs import CONFIG, LABELS, ROWS, TEMPLATE, opened
from tests.runtime.tuner_runs import BASE, alter_last_byte, bits, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_command_line(bundle: Bundle, file: Path, config: TuneConfig, folder: Path) -> Job:
    """The run as `edgezo tune` opens it."""
    inputs = TuneInputs(
        budget="8GB", data=(str(file),), valid=("none",), template=TEMPLATE, label=tuple(LABELS),
        max_seq=64, threads=2,
    )  # fmt: skip
    return prepare(bundle.root, inputs, config, RunFolder(folder), StopSignals())


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        dataclasses.replace(CONFIG, scope="answer", blocks="1", method="qzo"),
        TuneConfig(steps=6, max_time_s=0, batch_size=4),
    ],
    ids=["estimates", "answers", "first-order"],
)
def test_the_command_line_and_apps_open_the_same_run(
    bundle: Bundle, tmp_path: Path, config: TuneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The same settings, data, division of the blocks, plan and warnings; the same steps."""
    rows = [*ROWS, {"text": " ".join(["w9"] * 80), "label": 1}]  # truncated
    file = write_rows(tmp_path / "rows.jsonl", rows)
    job = by_command_line(bundle, file, config, tmp_path / "cli")
    with caplog.at_level(logging.WARNING):
        tuner = Tuner.open(
            bundle, file, config, tmp_path / "app",
            template=TEMPLATE, labels=LABELS, max_seq=64, budget="8GB", threads=2,
        )  # fmt: skip
    with tuner:
        assert tuner.plan is not None
        assert tuner.plan.choice == job.plan.choice
        assert tuner.plan.budget_bytes == job.budget == 8 * 10**9
        assert tuner.run.trajectory.settled == job.run.trajectory.settled
        assert tuner.run.engine.limits == job.run.engine.limits
        assert tuner.run.engine.streamed == job.run.engine.streamed
        one, other = (run.log._header().inputs() for run in (tuner.run, job.run))
        assert one == other
        said = [
            record.getMessage()
            for record in caplog.records
            if record.name == "edgezo_runtime.app.tuner"
        ]
        assert said == list(job.opened.warnings)
        assert any("1 of 9 rows are longer than 64 tokens" in text for text in said), said
        assert len(said) == (2 if config.method == "qzo" else 1)
        assert set(said) <= set(job.warnings)
        list(tuner)
        expected = bits(tuner)
    again = by_command_line(bundle, file, config, tmp_path / "app")  # the command line resumes it
    again.run.start(lambda: pytest.fail("measured"), resume=True)
    assert again.run.step_number == 6
    assert state_bits(again.run.state) == expected
    for run in (again.run, job.run):
        run.close()
    assert not (tmp_path / "cli").exists()


def test_opening_writes_nothing(bundle: Bundle, examples: ExampleSet, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    opened_run = open_run(bundle, RunData(examples), CONFIG, folder)
    assert not folder.path.exists()
    assert (opened_run.plan, opened_run.longest, opened_run.reader) == (None, None, None)
    assert (list(opened_run.sets), opened_run.questions) == (["train"], {})
    assert opened_run.run.closed
    planned = open_run(bundle, RunData(examples), CONFIG, folder, budget_bytes=8 * 10**9)
    assert planned.longest == int(examples.lengths().max())
    assert not folder.path.exists()
    for found in (opened_run, planned):
        found.run.engine.close()


def test_other_rows_are_read_as_those_to_tune_on(bundle: Bundle, tmp_path: Path) -> None:
    valid = write_rows(tmp_path / "valid.jsonl", ROWS[:3])
    data = RunData(ROWS, {"valid": valid, "test": ROWS[:2]}, TEMPLATE, LABELS, 64)
    found = open_run(bundle, data, CONFIG, RunFolder(tmp_path / "run"))
    assert {name: len(part) for name, part in found.sets.items()} == {
        "train": 8, "valid": 3, "test": 2,
    }  # fmt: skip
    for name, count in (("valid", 3), ("test", 2)):
        own = [example.tokens.tolist() for example in found.sets[name]]
        assert own == [example.tokens.tolist() for example in found.sets["train"]][:count]
    found.run.engine.close()


def test_a_run_that_takes_no_more_rows_lets_its_tokenizer_go(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Pins 10 MB that every run of the command line held for rows that never come."""
    data = RunData(ROWS, template=TEMPLATE, labels=LABELS)
    for process_bytes, stays in ((None, True), (1 << 20, False)):
        found = open_run(
            bundle, data, CONFIG, RunFolder(tmp_path), budget_bytes=8 * 10**9,
            process_bytes=process_bytes,
        )  # fmt: skip
        assert (found.reader is not None) == stays
        found.run.engine.close()


@pytest.mark.parametrize("calls", [1, 2])
def test_opening_is_ended_between_its_parts(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path, calls: int
) -> None:
    """And leaves no engine behind."""
    gc.collect()
    users, left = ENVIRONMENT._users, iter(range(calls - 1))

    def check() -> None:
        if next(left, None) is None:
            raise InterruptedRunError("interrupted")

    with pytest.raises(InterruptedRunError, match="interrupted"):
        open_run(
            bundle, RunData(examples), CONFIG, RunFolder(tmp_path), budget_bytes=8 * 10**9,
            check=check,
        )  # fmt: skip
    assert ENVIRONMENT._users == users


def test_what_the_user_should_know_is_said(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    manifest = dataclasses.replace(bundle.manifest, backward="an operator has no gradient")
    lesser = dataclasses.replace(bundle, manifest=manifest)
    config = TuneConfig(steps=2, max_time_s=0, batch_size=2)
    for own, settings, text in (
        (lesser, config, "no first-order steps; .*: an operator has no gradient"),
        (bundle, dataclasses.replace(CONFIG, method="qzo"), "qzo: made for bundles exported with"),
        (bundle, dataclasses.replace(CONFIG, scope="answer"), "begin after different tokens"),
    ):
        found = open_run(own, RunData(examples), settings, RunFolder(tmp_path))
        assert any(re.search(text, warning) for warning in found.warnings), found.warnings
        found.run.engine.close()
    found = open_run(bundle, RunData(examples), CONFIG, RunFolder(tmp_path), governors="battery")
    found.run.engine.close()


def test_altered_weights_are_not_tuned_on(bundle, examples, tmp_path):
    """The digests of the manifest were compared with those of the journal, never with the files."""
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.root, copy)
    with Tuner.open(copy, examples, BASE, tmp_path / "run") as tuner:
        tuner.step()
    alter_last_byte(copy / "weights.safetensors")
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


def test_a_run_resumes_with_the_template_that_it_has(bundle: Bundle, tmp_path: Path) -> None:
    """Template and labels that were left out made other tokens, and the run was refused."""
    with opened(bundle, tmp_path / "run") as tuner:
        tuner.step()
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path / "run") as tuner:
        assert tuner.step_number == 1
        assert tuner.examples.label_words == tuple(LABELS)
        assert tuner.classify("w20 w40").label in LABELS


def test_an_initial_adapter_brings_its_template(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.safetensors"
    reading = Reading(TEMPLATE, tuple(LABELS), 64)
    tensors = bundle.trainables()
    start = make_adapter(
        file, bundle, tensors, steps=1, created_by="test", scope="all", reading=reading
    )
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path / "own", adapter=start) as tuner:
        assert tuner.examples.reading == reading
    assert not caplog.messages
    words = LABELS[::-1]
    settings = {"template": TEMPLATE, "labels": words, "adapter": start}
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path / "other", **settings):
        assert "the same words in another order" in caplog.text
    texts = [{"text": "w20 w21 w22"}]
    with Tuner.open(
        bundle, texts, CONFIG, tmp_path / "texts", adapter=start, template="none"
    ) as tuner:
        assert tuner.examples.kind == "completion"
