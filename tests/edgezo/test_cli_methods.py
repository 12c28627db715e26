"""`edgezo methods`: complete, readable, and the same as the dict says."""

from __future__ import annotations

import json

import pytest

from edgezo_runtime.methods.catalogue import METHODS, method_config
from tests.edgezo.conftest import Invoke


def test_every_method_is_listed_within_the_width(invoke: Invoke) -> None:
    lines = invoke("methods").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    head = next(number for number, line in enumerate(lines) if line.startswith("method "))
    rows = [line for line in lines[head + 1 :] if not line.startswith(" ")]
    assert [row.split()[0] for row in rows] == list(METHODS)
    column = lines[head].index("summary")
    words = " ".join(line[column:].strip() for line in lines[head + 1 :])
    for method in METHODS.values():
        assert method.summary in words


def test_json_has_everything(invoke: Invoke) -> None:
    found = json.loads(invoke("methods", "--json").stdout)["methods"]
    assert [entry["name"] for entry in found] == list(METHODS)
    for entry, method in zip(found, METHODS.values(), strict=True):
        assert entry["options"] == method.options()
        assert entry["evaluations"] == method.evaluations
        assert entry["state"] == method.state
        assert entry["scheme"] == method.scheme
        assert method_config(entry["name"], **entry["settings"]) == method_config(entry["name"])


@pytest.mark.parametrize("name", METHODS)
def test_one_is_shown_with_its_options(invoke: Invoke, name: str) -> None:
    lines = invoke("methods", name).stdout.splitlines()
    assert max(map(len, lines)) <= 100
    flags = [f"--{option.replace('_', '-')} {v}" for option, v in METHODS[name].options().items()]
    assert [flag for flag in flags if not any(line.startswith(flag) for line in lines)] == []


def test_published_rates_are_told_for_alpha_equal_to_rank(invoke: Invoke) -> None:
    rates = json.loads(invoke("methods", "zo-sgd", "--json").stdout)["published"]
    # MeZO's LoRA has alpha / rank 2: at 1 the adapter moves twice as far, its gradient is half.
    assert (rates["lr"], rates["eps"]) == (1e-4, 1e-2)
    assert rates["lr_at_scale_1"] == pytest.approx(4e-4)
    assert rates["eps_at_scale_1"] == pytest.approx(2e-2)
    shown = invoke("methods", "zo-sgd").stdout
    assert "lr 0.0001, eps 0.01 for LoRA" in shown
    assert "lr 0.0004, eps 0.02" in shown


def test_settings_are_flags_that_tune_takes(invoke: Invoke) -> None:
    words = " ".join(invoke("methods", "qzo").stdout.split())
    assert "--no-normalize" in words
    assert "--batch-size 16" in words
    assert "--clip" not in words.partition("options and")[0]  # 2.5 is the default
    assert "--trainable scales" in words


def test_unknown_name(invoke: Invoke) -> None:
    assert "'guess' is not one of auto" in invoke("methods", "guess", code=2).stderr
