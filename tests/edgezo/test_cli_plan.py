"""`edgezo plan`: the table, the JSON, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo_runtime.system.sizes import parse_size
from tests.edgezo.conftest import Invoke, Tiny

GB = 10**9


def plan(invoke: Invoke, tiny: Tiny, *more: object) -> dict[str, object]:
    args = ("plan", tiny.int8, "--data", tiny.data, "--budget", "8GB", "--json", *more)
    found: dict[str, object] = json.loads(invoke(*args).stdout)
    return found


def test_json(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    found = plan(invoke, tiny, "--batch-size", "8")
    ledger = found["ledger"]
    assert isinstance(ledger, dict)
    parts = {name: size for name, size in ledger.items() if name != "reserve"}
    predicted = max(sum(parts.values()), found["start_peak_bytes"])  # type: ignore[type-var]
    assert found["predicted_bytes"] == predicted
    assert ledger["reserve"] == 8 * GB - predicted  # type: ignore[operator]
    assert found["resident_blocks"] == 2
    assert found["batch_size"] == 8
    assert "memory_limits" not in found
    assert list(tmp_path.iterdir()) == []


def test_table_adds_up(invoke: Invoke, tiny: Tiny) -> None:
    lines = invoke("plan", tiny.int8, "--data", tiny.data, "--budget", "8GB").stdout.splitlines()
    ledger = lines[lines.index("") + 1 :]
    ledger = ledger[: ledger.index("")]
    sizes = {line.split()[0]: parse_size(" ".join(line.split()[1:3])) for line in ledger}
    assert sizes["budget"] == 8 * GB
    assert sizes["peak"] + sizes["reserve"] == pytest.approx(8 * GB, rel=0.01)
    assert any("smallest sufficient budget" in line for line in lines)


def test_without_data(invoke: Invoke, tiny: Tiny) -> None:
    args = ("plan", tiny.int8, "--budget", "8GB", "--max-seq", "12", "--batch-size", "3", "--json")
    text = json.loads(invoke(*args).stdout)
    assert (text["longest"], text["batch_size"], text["scope"]) == (11, 3, "all")
    labels = json.loads(invoke(*args, "--label", " a", "--label", " b").stdout)
    assert labels["longest"] == 12


@pytest.mark.parametrize("option", ["--valid", "--test", "--template"])
def test_without_data_nothing_else_of_them(invoke: Invoke, tiny: Tiny, option: str) -> None:
    done = invoke("plan", tiny.int8, "--budget", "8GB", option, "x", code=2)
    assert "need --data" in done.stderr


def test_memory_limits_are_shown(invoke: Invoke, tiny: Tiny) -> None:
    found = plan(invoke, tiny, "--enforce")
    memory_limits = found["memory_limits"]
    assert isinstance(memory_limits, list)
    assert {limit["name"] for limit in memory_limits} >= {"plan", "arena", "watch", "control-group"}
    done = invoke("plan", tiny.int8, "--data", tiny.data, "--budget", "8GB", "--enforce")
    assert "at every block" in done.stdout
    args = ("tune", tiny.int8, "--data", tiny.data, "--budget", "8GB", "--steps", "1")
    assert "at every block" in invoke(*args, "--batch-size", "8", "--enforce", "-o", "r").stderr


def test_more_than_the_machine_has(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = invoke("plan", tiny.int8, "--budget", "900TB", code=2)
    assert "this machine has" in done.stderr
    monkeypatch.setattr("edgezo.cli.settings.budget.limit_bytes", lambda: 2 * GB)
    monkeypatch.setattr("edgezo.cli.settings.budget.total_bytes", lambda: 2 * GB)
    assert "control group has" in invoke("plan", tiny.int8, "--budget", "3GB", code=2).stderr


def test_more_than_is_free_is_a_warning(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy(monkeypatch, 20 * GB)
    assert "free now" in invoke("plan", tiny.int8, "--data", tiny.data, "--budget", "30GB").stderr


def test_auto_is_resolved_and_shown(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy(monkeypatch, 20 * GB)
    assert plan(invoke, tiny, "--budget", "auto")["budget_bytes"] == 16 * GB
    done = invoke("plan", tiny.int8, "--data", tiny.data, "--budget", "auto")
    assert "16.0 GB  --budget auto" in done.stdout


def roomy(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A machine with more room than this process, where other tests ran, has ever taken."""
    monkeypatch.setattr("edgezo.cli.settings.budget.total_bytes", lambda: 64 * GB)
    monkeypatch.setattr("edgezo.cli.settings.budget.available_bytes", lambda: free)


def test_too_small(invoke: Invoke, tiny: Tiny) -> None:
    done = invoke("plan", tiny.int8, "--data", tiny.data, "--budget", "10MB", code=3)
    assert "give --budget '" in done.stderr
    assert done.stdout == ""
