"""What reports say in words and numbers."""

from __future__ import annotations

from pathlib import Path

from edgezo.report import facts
from edgezo.report.comparison import HEADER, comparison_row, summary
from edgezo.runs.run_record import read_run
from tests.edgezo.written_runs import LEDGER, eval_line, receipt, step_line, written_run


def test_cards(tmp_path: Path) -> None:
    found = {card.label: card for card in facts.cards(read_run(written_run(tmp_path / "run")))}
    assert found["accuracy"].value == "52.0 % → 84.0 %"
    assert found["accuracy"].good
    assert found["accuracy on test rows"].value == "80.0 %"
    assert found["time of steps"].note == "80 steps, step 40 kept, 64 rows/s"
    memory = found["peak memory"]
    assert (memory.share, memory.mark) == (301 / 500, 290 / 500)


def test_a_run_that_became_worse(tmp_path: Path) -> None:
    lines = [eval_line("before", 0, 0.5, 0.9), step_line(0), eval_line("after", 1, 0.6, 0.8)]
    run = read_run(written_run(tmp_path / "run", metrics=lines, ended=receipt(kept_step=1)))
    card = facts.cards(run)[0]
    assert card.good is False
    assert card.note.startswith("\N{MINUS SIGN}10.0 points")


def test_losses_where_there_are_no_classes(tmp_path: Path) -> None:
    lines = [eval_line("before", 0, 2.5, None), step_line(0), eval_line("after", 1, 2.0, None)]
    run = read_run(written_run(tmp_path / "run", metrics=lines, ended={}))
    first, *_ = facts.cards(run)
    assert (first.label, first.value, first.good) == ("loss", "2.500 → 2.000", True)
    assert facts.shares(run) == []


def test_the_ledger_ends_with_the_reserve(tmp_path: Path) -> None:
    found = facts.ledger(read_run(written_run(tmp_path / "run")))
    assert [name for name, _, _ in found] == [
        "process", "data", "adapter", "blocks", "activations", "reserve",
    ]  # fmt: skip
    assert sum(size for _, size, _ in found) == sum(LEDGER.values())
    assert found[0][2] == "interpreter and libraries"


def test_memory_in_words(tmp_path: Path) -> None:
    found = dict(facts.memory_rows(read_run(written_run(tmp_path / "run"))))
    assert found["smallest sufficient budget"] == "180 MB"
    assert found["with 900 MB"] == "steps about 1.25 times as fast"
    assert found["measures against short memory"] == "none was needed"


def test_commands(tmp_path: Path) -> None:
    run = written_run(tmp_path / "a run")
    found = dict(facts.commands(read_run(run)))
    assert found["tune again"] == f"edgezo tune --config '{run}/config.json' -o '{run}-2'"
    assert "go on" not in found
    (run / "receipt.json").unlink()
    assert "--resume" in dict(facts.commands(read_run(run)))["go on"]


def test_settings_and_the_rest(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run", ended=receipt(error="it broke")))
    assert dict(facts.settings(run))["label"] == "' bad', ' good'"
    assert dict(facts.all_settings(run))["max_seq"] == "64"
    assert facts.warnings(run) == ["3 rows are cut: <b>& more</b>", "it broke"]
    assert "plan" not in dict(facts.receipt_rows(run))
    assert facts.digests(run) == [("adapter", "ab" * 32)]
    assert facts.happenings(run, "pressure") == [(10, "memory is short: 1 of 2 workers")]
    shown = [facts.shown(value) for value in (None, True, 1.5, [], {"a": 1}, "x")]
    assert shown == ["-", "yes", "1.5", "-", "a 1", "x"]


def test_a_line_of_a_table(tmp_path: Path) -> None:
    run = read_run(written_run(tmp_path / "run"))
    assert dict(zip(HEADER, comparison_row(run), strict=True))["after"] == "84.0 %"
    found = summary(run)
    assert (found["score_before"], found["score_after"], found["loss_test"]) == (0.52, 0.84, 0.42)
    assert (found["steps"], found["seconds"], found["state"]) == (80, 20, "done")
