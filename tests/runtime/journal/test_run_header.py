"""Headers of runs: the names of the file format, the digest, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import AnswerSettings, TuneConfig
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.run_header import RunHeader, differences
from edgezo_runtime.methods.rates import Rates
from tests.runtime.tiny_bundle import write_bundle
from tests.runtime.tiny_sets import random_set

VERSION_0_1: dict[str, Any] = {
    "config": {
        "method": "zo-adam",
        "rule": "own",
        "schedule": "all",
        "blocks": "all",
        "modules": "auto",
        "scope": "all",
        "objective": "loss",
        "max_new_tokens": 32,
        "temperature": 0.0,
        "stop": ["END"],
        "epochs": 0.0,
        "batch_size": 4,
        "lr": 0.01,
        "lr_schedule": "constant",
        "horizon": 2000,
        "eps": 0.02,
        "noise": "rademacher",
        "normalize": True,
        "clip": 2.5,
        "average": 0.0,
        "hybrid": 2,
        "hybrid_lr": 0.003,
        "seed": 7,
        "options": {"b1": 0.8},
        "guard": False,
        "prefix_cache": True,
    },
    "bundle": {"manifest.json": "1" * 64},
    "data": "2" * 64,
    "tokens": "3" * 64,
    "rows": 12,
    "scope": "all",
    "invocation": [],
    "rates": {
        "lr": 0.01,
        "eps": 0.02,
        "words": "measured",
        "tail": 2,
        "tail_lr": 0.003,
        "seconds": 1.5,
    },
}
"""A header as version 0.1 wrote it."""


def inputs_digest(values: dict[str, Any]) -> str:
    """The digest of a header's inputs, as the format defines it."""
    inputs = {name: value for name, value in values.items() if name != "rates"}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def test_a_header_of_version_0_1_is_read() -> None:
    header = RunHeader.read(VERSION_0_1, Path("j"))
    assert header.config.first_order == 2
    assert header.config.first_order_lr == 0.003
    assert header.config.rollback is False
    assert header.rates.num_first_order == 2
    assert header.rates.first_order_lr == 0.003
    assert (header.rows, header.start, header.reward) == (12, "", "")


def test_it_is_written_under_the_same_keys() -> None:
    written = RunHeader.read(copy.deepcopy(VERSION_0_1), Path("j")).as_json()
    assert written == VERSION_0_1
    for group, old, new in (
        ("config", {"hybrid", "hybrid_lr", "guard"}, {"first_order", "first_order_lr", "rollback"}),
        ("rates", {"tail", "tail_lr"}, {"num_first_order", "first_order_lr"}),
    ):
        assert old <= written[group].keys()
        assert not new & written[group].keys()
    assert RunHeader.read(json.loads(json.dumps(written)), Path("j")).as_json() == written


def test_the_digest_is_of_the_names_of_the_format() -> None:
    header = RunHeader.read(VERSION_0_1, Path("j"))
    assert header.digest() == inputs_digest(VERSION_0_1)
    # As version 0.1 computed it: with another one, no run of that version can be resumed.
    assert header.digest() == GOLDEN_DIGEST


GOLDEN_DIGEST = "a1bd37f202fe379801c51e0c81c1d56f8a45d05d68f6f7767a95e3742782f020"


def test_the_digest_leaves_out_what_was_measured() -> None:
    rates = {**VERSION_0_1["rates"], "lr": 0.5}
    other = RunHeader.read({**VERSION_0_1, "rates": rates}, Path("j"))
    assert other.digest() == inputs_digest(VERSION_0_1)
    changed = RunHeader.read({**VERSION_0_1, "rows": 13}, Path("j"))
    assert changed.digest() != other.digest()
    started = RunHeader.read({**VERSION_0_1, "start": "4" * 64}, Path("j"))
    assert started.digest() == inputs_digest({**VERSION_0_1, "start": "4" * 64})


def test_what_is_no_header_is_refused() -> None:
    for changed, message in (
        ({"rows": 0}, "the header has 0 rows"),
        ({"rows": 2**40 + 1}, "rows"),
        ({"odd": 1}, "odd: unknown key"),
        ({"scope": "some"}, "scope: expected"),
        ({"config": {**VERSION_0_1["config"], "batch_size": -1}}, "the header is no run's"),
        ({"rates": {**VERSION_0_1["rates"], "tail": "two"}}, "num_first_order: expected int"),
    ):
        with pytest.raises(RunFileError, match=message):
            RunHeader.read({**VERSION_0_1, **changed}, Path("j"))
    lost = {name: value for name, value in VERSION_0_1.items() if name != "tokens"}
    with pytest.raises(RunFileError, match="tokens: missing"):
        RunHeader.read(lost, Path("j"))


def test_the_header_of_a_new_run(tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle"))
    examples = random_set("labels", (4, 3, 5), 0)
    config = TuneConfig(steps=5, max_time_s=1.0)
    header = RunHeader.of(bundle, config, examples, "all", Rates(0.1, 0.01))
    assert header.rows == 3
    assert header.bundle == {name: info.sha256 for name, info in bundle.manifest.files.items()}
    written = header.as_json()
    assert "steps" not in written["config"]  # may change when a run is resumed
    assert not {"start", "reward"} & written.keys()
    assert RunHeader.read(written, Path("j")).digest() == header.digest()


def test_how_rows_were_read_is_kept_and_is_no_identity() -> None:
    """`tokens` is: other settings that make the same tokens resume the run."""
    reading = {"template": "{a} b", "labels": [" x"], "max_seq": 9}
    header = RunHeader.read({**VERSION_0_1, "reading": reading}, Path("j"))
    assert header.reading == Reading("{a} b", (" x",), 9)
    defaults = {"train_on": "all", "long": "truncate"}
    assert header.as_json()["reading"] == reading | defaults
    assert header.digest() == GOLDEN_DIGEST
    old = RunHeader.read(VERSION_0_1, Path("j"))
    assert (old.reading, old.answers) == (None, None)
    with pytest.raises(RunFileError, match="names no field"):
        RunHeader.read({**VERSION_0_1, "reading": {**reading, "template": "x"}}, Path("j"))


def test_answers_are_those_of_rows_without_classes() -> None:
    config = {**VERSION_0_1["config"], "objective": "f1", "hybrid": 0, "hybrid_lr": "auto"}
    reading = {"template": "{a}", "labels": [], "max_seq": 9}
    header = RunHeader.read({**VERSION_0_1, "config": config, "reading": reading}, Path("j"))
    assert header.answers == AnswerSettings(32, 0.0, ("END",))
    classes = {**reading, "labels": [" x", " y"]}
    header = RunHeader.read({**VERSION_0_1, "config": config, "reading": classes}, Path("j"))
    assert header.answers is None


def test_differences_are_named() -> None:
    old = {"config": {"lr": 0.1, "seed": 0}, "rows": 3}
    new = {"config": {"lr": 0.2, "seed": 0}, "rows": 3, "reward": "f"}
    assert differences(old, old) == []
    assert differences(old, new) == ["config.lr was 0.1, is 0.2", "reward was None, is 'f'"]
