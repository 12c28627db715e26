"""Settings: flag over file over default, each written once, wrong values refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from edgezo.cli.export import ExportSettings, scheme_options
from edgezo.cli.settings.method_config import CONFIG_CLASSES, flat_config
from edgezo.cli.settings.options import Duration, flag_name, flat_fields
from edgezo.cli.tune import run_command
from edgezo.cli.tune.inputs import TuneInputs
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.methods.catalogue import method_config
from tests.edgezo.conftest import Invoke

Seen = list[tuple[str | None, TuneInputs, TuneConfig]]

OTHER: dict[str, Any] = {
    "method": "subzero",
    "rule": "adam",
    "schedule": "cyclic:2",
    "blocks": "0-1",
    "lr_schedule": "cosine",
    "noise": "gaussian",
    "scope": "answer",
    "objective": "f1",
    "stop": ("x", "y"),
    "average": 0.5,
    "clip": 4.0,
    "lr": 0.25,
    "eps": 0.125,
    "modules": "o_proj",
    "epochs": 2.5,
    "batch_size": 24,
    "first_order": 3,
    "first_order_lr": 0.5,
    "max_time_s": 45.0,
    "eval_every_s": 20.0,
    "keep": "last",
    "data": ("rows.jsonl", "more.csv"),
    "valid": ("valid.jsonl",),
    "test": ("test.jsonl",),
    "max_seq": 96,
    "long": "drop",
    "train_on": "last",
    "template": "{a} b",
    "label": (" x", " y"),
    "budget": "3GB",
    "device": "gpu",
    "device_budget": "2GB",
    "when": "idle,thermal:70",
    "adapter": "other",
    "log": ("csv", "wandb"),
    "num_directions": 3,
    "directions": "shared",
    "sign": "scalar",
    "momentum": 0.5,
    "b1": 0.25,
    "b2": 0.5,
    "weight_decay": 0.125,
    "sparsity": 0.5,
    "mask": "large",
    "subspace_rank": 2,
    "refresh": 5,
    "smoothing": 0.0,
    "anchor_every": 3,
    "anchor_lr": 2.0,
    "anchor_batches": 4,
    "query_scale": 2.5,
    "query_growth": 1.5,
    "anneal_steps": 12.5,
    "hessian_every": 6,
    "pairs": 77,
}
"""Values that are not the default; numbers and switches without one here are made from it."""


def other_value(field: dataclasses.Field[Any]) -> Any:
    """A value of a setting that is not its default."""
    if field.name in OTHER:
        return OTHER[field.name]
    if isinstance(field.default, bool):
        return not field.default
    assert isinstance(field.default, int | float), f"add {field.name} to OTHER"
    return field.default + 7


def as_flags(name: str, value: Any) -> list[str]:
    """How a value is written on the command line."""
    flag = flag_name(name)
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, tuple):
        return [part for item in value for part in (flag, item)]
    return [flag, str(value)]


SETTINGS = [field for cls in (TuneInputs, *CONFIG_CLASSES) for field in flat_fields(cls)]
CHANGED = {field.name: other_value(field) for field in SETTINGS}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """What `tune` was called with."""
    calls: Seen = []
    monkeypatch.setattr(
        run_command,
        "tune",
        lambda bundle, inputs, config, *_, **__: calls.append((bundle, inputs, config)),
    )
    return calls


def test_defaults_are_those_of_the_config(invoke: Invoke, seen: Seen) -> None:
    invoke("tune", "b", "--budget", "1GB")
    assert seen == [("b", TuneInputs(budget="1GB"), TuneConfig())]


def test_every_flag_arrives(invoke: Invoke, seen: Seen) -> None:
    flags = [part for name, value in CHANGED.items() for part in as_flags(name, value)]
    invoke("tune", *flags)
    _, inputs, config = seen[0]
    arrived = {**dataclasses.asdict(inputs), **flat_config(config)}
    assert arrived == CHANGED
    for field in SETTINGS:
        assert arrived[field.name] != field.default, field.name


def toml_text(values: dict[str, Any]) -> str:
    """A flat TOML document; JSON's strings, numbers, switches and lists are TOML's too."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_every_setting_arrives_from_a_file(
    invoke: Invoke, seen: Seen, tmp_path: Path, suffix: str
) -> None:
    text = toml_text(CHANGED) if suffix == ".toml" else json.dumps(CHANGED)
    file = tmp_path / f"config{suffix}"
    file.write_text(text)
    invoke("tune", "--config", file)
    _, inputs, config = seen[0]
    assert {**dataclasses.asdict(inputs), **flat_config(config)} == CHANGED


def test_a_flag_goes_before_the_file(invoke: Invoke, seen: Seen, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('budget = "1GB"\nlr = 0.5\nmax-time = "2m"\nlabel = [" a"]\nbundle = "x"\n')
    invoke("tune", "--lr", "0.75", "--config", file)
    invoke("tune", "other", "--config", file, "--label", " b", "--max-time", "5")
    assert [(b, c.lr, c.max_time_s, i.label) for b, i, c in seen] == [
        ("x", 0.75, 120.0, (" a",)),
        ("other", 0.5, 5.0, (" b",)),
    ]


def test_a_method_brings_its_settings(invoke: Invoke, seen: Seen, tmp_path: Path) -> None:
    """Flag over file over method over default, and with `--method` in the file as well."""
    file = tmp_path / "c.toml"
    file.write_text('budget = "1GB"\nmethod = "fzoo"\nclip = 4.0\nbatch-size = 5\n')
    invoke("tune", "b", "--budget", "1GB", "--method", "fzoo")
    invoke("tune", "b", "--config", file)
    invoke("tune", "b", "--config", file, "--batch-size", "7", "--lr-schedule", "cosine")
    invoke("tune", "b", "--config", file, "--method", "auto")
    found = [(c.clip, c.batch_size, c.lr_schedule, c.noise, c.seed) for _, _, c in seen]
    assert found == [
        (0.0, 16, "constant", "rademacher", 0),
        (4.0, 5, "constant", "rademacher", 0),
        (4.0, 7, "cosine", "rademacher", 0),
        (4.0, 5, "linear", "rademacher", 0),
    ]
    assert [c.method for _, _, c in seen] == ["fzoo", "fzoo", "fzoo", "auto"]


def test_a_default_that_is_given_goes_before_the_method(invoke: Invoke, seen: Seen) -> None:
    """--clip 2.5 is what every run has, unless its method has another one."""
    invoke("tune", "b", "--budget", "1GB", "--method", "zo-sgd", "--clip", "2.5", "--normalize")
    config = seen[0][2]
    assert (config.clip, config.normalize, config.average) == (2.5, True, 0.0)


def test_options_of_a_method_arrive(invoke: Invoke, seen: Seen, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"budget": "1GB", "method": "subzero", "refresh": 9, "subspace-rank": 3}')
    invoke("tune", "b", "--config", file, "--refresh", "4")
    assert seen[0][2] == method_config("subzero", refresh=4, subspace_rank=3)
    assert flat_config(seen[0][2])["refresh"] == 4
    assert "num_directions" not in flat_config(seen[0][2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lrr = 1", "did you mean 'lr'"),
        ("steps = 1.5", "expected a whole number"),
        ("steps = true", "expected a whole number"),
        ('hybrid = "all"', "expected a whole number"),
        ("lr = true", "expected a number"),
        ('normalize = "no"', "expected true or false"),
        ('label = " x"', "expected a list of strings"),
        ("budget = 8", "expected a string"),
        ("lr = 1\nlr = 2", "not TOML"),
        ("max-time = 1\nmax_time_s = 2", "set twice"),
    ],
)
def test_wrong_files_are_refused(
    invoke: Invoke, seen: Seen, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    result = invoke("tune", "--budget", "1GB", "--config", file, code=2)
    assert message in result.stderr
    assert not seen


def test_a_missing_file_is_refused(invoke: Invoke) -> None:
    assert "none.json" in invoke("tune", "--config", "none.json", code=2).stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("0.5h", 1800.0),
        ("4m48s", 288.0),
        ("1h05m", 3900.0),
        ("3d04h", 273600.0),
        (".5m", 30.0),
        (" 1H ", 3600.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds
    assert Duration("auto").convert(text, None, None) == seconds


def test_a_duration_may_be_a_word(invoke: Invoke, seen: Seen) -> None:
    assert Duration("auto").convert("auto", None, None) == "auto"
    invoke("tune", "b", "--budget", "1GB", "--max-time", "auto")
    assert seen[0][2].max_time_s == "auto"
    told = invoke("tune", "b", "--budget", "1GB", "--eval-every", "often", code=2).stderr
    assert "'often' is not a duration" in told


@pytest.mark.parametrize("text", ["", "s", "m5", "5s4m", "5ms", "1.2.3s", "-5m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration; write 90"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-time", "soon"],
        ["--lr", "fast"],
        ["--lr", "nan"],
        ["--lr", "0"],
        ["--method", "guess"],
        ["--rule", "guess"],
        ["--mask", "some"],
        ["--refresh", "often"],
        ["--method", "auto", "--refresh", "4"],
        ["--method", "rloo", "--lr", "published"],
        ["--steps", "-1"],
        ["--max-seq", "0"],
        ["--threads", "-1"],
        ["--method", "zo-sgd", "--max-time", "0"],
        ["--resume"],
        ["--budget", "8G"],
        ["--budget", "0"],
    ],
)
def test_wrong_flags_are_usage_errors(invoke: Invoke, flags: list[str]) -> None:
    result = invoke("tune", "missing", "--budget", "1GB", *flags, code=2)
    assert result.stdout == ""


def test_budget_is_required(invoke: Invoke) -> None:
    assert "--budget" in invoke("tune", "b", code=2).stderr


def test_auto_is_the_default(invoke: Invoke, seen: Seen) -> None:
    invoke("tune", "b", "--budget", "1GB", "--lr", "auto", "--eps", "auto")
    assert seen[0][2] == TuneConfig()


def test_export_defaults_are_those_of_the_exporter() -> None:
    from edgezo_export.export import ExportConfig
    from edgezo_export.schemes import make_scheme

    own, config = ExportSettings(), ExportConfig()
    assert make_scheme(own.trainable, scheme_options(own)) == config.scheme
    assert (own.quant, own.task, own.force) == (config.quant, config.task, config.force)


def test_settings_have_one_home() -> None:
    names = [field.name for field in SETTINGS]
    assert len(names) == len(set(names))
    assert all(field.metadata["help"] for field in SETTINGS)
