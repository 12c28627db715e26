"""`--quiet`, `--log`, and progress of whole commands."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.edgezo.conftest import Invoke, Tiny, tune_args


def test_quiet_prints_results_only(tiny: Tiny, invoke: Invoke) -> None:
    result = invoke(*tune_args(tiny, "--quiet"))
    assert result.stderr == ""
    assert result.stdout.startswith("run ")


def test_warnings_remain(tiny: Tiny, invoke: Invoke) -> None:
    result = invoke(*tune_args(tiny, "--quiet", "--max-seq", 4))
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines())
    assert result.stderr


def test_a_pipe_gets_plain_lines(tiny: Tiny, invoke: Invoke) -> None:
    told = invoke(*tune_args(tiny)).stderr
    assert "\x1b" not in told
    assert "\r" not in told
    assert "tokenizing rows\n" in told
    assert "measuring passes for the memory plan 0/" in told
    assert "step 1 of 4  loss" in told


def test_a_run_is_logged(tiny: Tiny, invoke: Invoke) -> None:
    invoke(*tune_args(tiny, "--log", "csv"))
    with Path("run/log.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["step"] for line in lines if line["train/loss"]] == ["1", "2", "3", "4"]
    assert [line["step"] for line in lines if line["valid/accuracy"]] == ["0", "4"]
    assert "expected one of csv" in invoke(*tune_args(tiny, "--log", "x"), code=2).output
