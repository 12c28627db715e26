"""Runs that begin from an adapter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.adapters.adapter import Adapter, make_adapter
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.initial_adapter import load_initial_adapter, settle_initial_adapter
from edgezo_runtime.training.replay import replay
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, losses_of, run_to_the_end, state_bits

CONFIG = method_config(
    "zo-sgd", steps=4, batch_size=3, lr=0.05, eps=0.01, blocks="all", lr_schedule="constant"
)


def random_start(bundle: Bundle, path: Path, scope: Scope = "all") -> Adapter:
    generator = np.random.default_rng(3)
    tensors = {
        name: value + generator.standard_normal(value.shape).astype(np.float32) / 8
        for name, value in bundle.trainables().items()
    }
    made = make_adapter(path, bundle, tensors, steps=1, created_by="test", scope=scope)
    made.save(path)
    return made


@pytest.mark.parametrize("scope", ["all", "answer"])
def test_the_first_losses_are_those_of_the_adapter(
    bundle: Bundle, tmp_path: Path, scope: Scope
) -> None:
    """Blocks that do not train keep what the adapter has, kept states or not."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    start = random_start(bundle, tmp_path / "a.safetensors", scope)
    last = dataclasses.replace(CONFIG, blocks="1", scope=scope)
    losses = []
    for number, cached in enumerate((True, False)):
        config = dataclasses.replace(last, prefix_cache=cached)
        run_to_the_end(bundle, examples, config, tmp_path / str(number), adapter=start)
        losses.append(losses_of(tmp_path / str(number) / "journal.bin"))
    found = [np.frombuffer(one[0]) for one in losses]
    np.testing.assert_allclose(*found, rtol=0.02)  # kept states are float16
    run_to_the_end(bundle, examples, last, tmp_path / "plain")
    plain = np.frombuffer(losses_of(tmp_path / "plain" / "journal.bin")[0])
    assert np.abs(plain - found[1]).max() > 1e-2 * np.abs(plain).max()


def test_a_cut_run_goes_on_from_its_own_copy(bundle: Bundle, tmp_path: Path) -> None:
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    file = tmp_path / "a.safetensors"
    random_start(bundle, file)
    whole = run_to_the_end(bundle, examples, CONFIG, tmp_path / "whole", adapter=file)
    with Tuner.open(bundle, examples, CONFIG, tmp_path / "cut", adapter=str(file)) as tuner:
        tuner.step()
    (tmp_path / "cut" / "snapshot.safetensors").unlink()
    file.unlink()
    with Tuner.open(bundle, examples, CONFIG, tmp_path / "cut", adapter=str(file)) as tuner:
        tuner.step()  # an app that says the same every time
    assert run_to_the_end(bundle, examples, CONFIG, tmp_path / "cut") == whole
    with pytest.raises(RunFileError, match="no such run or adapter"):
        Tuner.open(bundle, examples, CONFIG, tmp_path / "another", adapter=str(file))
    found = replay(bundle, tmp_path / "cut" / "journal.bin")
    assert state_bits(found.state) == whole
    copy = tmp_path / "cut" / "start.safetensors"
    run_to_the_end(bundle, examples, CONFIG, tmp_path / "other")
    with pytest.raises(UsageError, match="has no initial adapter"):
        replay(bundle, tmp_path / "other" / "journal.bin", copy)
    copy.unlink()
    with pytest.raises(RunFileError, match="start was"):
        Tuner.open(bundle, examples, CONFIG, tmp_path / "cut")


def test_another_start_is_another_run(bundle: Bundle, tmp_path: Path) -> None:
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    start = random_start(bundle, tmp_path / "a.safetensors")
    run_to_the_end(bundle, examples, CONFIG, tmp_path / "run", adapter=start)
    other = dataclasses.replace(
        start, tensors={name: value * 2 for name, value in start.tensors.items()}
    )
    with pytest.raises(RunFileError, match="start was"):
        Tuner.open(bundle, examples, CONFIG, tmp_path / "run", adapter=other)
    answers = dataclasses.replace(CONFIG, scope="answer")
    with pytest.raises(UsageError, match=r"scope`? answer: .* acts on every token"):
        Tuner.open(bundle, examples, answers, tmp_path / "answers", adapter=start)


def test_a_start_that_was_left_behind_is_taken_away(bundle: Bundle, tmp_path: Path) -> None:
    """By a run that was cut off before its journal was there."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    (tmp_path / "run").mkdir()
    random_start(bundle, tmp_path / "run" / "start.safetensors")
    begun = run_to_the_end(bundle, examples, CONFIG, tmp_path / "run")
    assert begun == run_to_the_end(bundle, examples, CONFIG, tmp_path / "new")
    assert not (tmp_path / "run" / "start.safetensors").exists()
    with Tuner.open(bundle, examples, CONFIG, tmp_path / "run") as tuner:
        assert tuner.done


def test_the_copy_of_a_run_takes_the_place_of_a_start_that_is_gone(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    file, run = tmp_path / "a.safetensors", RunFolder(tmp_path / "run")
    start = random_start(bundle, file)
    assert load_initial_adapter(None, run) is None
    assert load_initial_adapter(start, run) is start
    read = load_initial_adapter(str(file), run)
    assert read is not None
    assert read.tensors_sha256() == start.tensors_sha256()
    assert settle_initial_adapter(None, run, CONFIG) == (None, CONFIG)
    file.rename(run.start)
    with pytest.raises(RunFileError, match="no such run or adapter"):
        load_initial_adapter(file, run)  # a copy without a journal is none of a run
    run.journal.write_bytes(b"journal")
    for found in (load_initial_adapter(file, run), settle_initial_adapter(None, run, CONFIG)[0]):
        assert found is not None
        assert found.tensors_sha256() == start.tensors_sha256()


@pytest.mark.parametrize("scope", ["all", "answer"])
def test_a_run_takes_over_the_scope_of_its_start(
    bundle: Bundle, tmp_path: Path, scope: Scope
) -> None:
    run = RunFolder(tmp_path / "run")
    start = random_start(bundle, tmp_path / "a.safetensors", scope)
    for asked in ("auto", scope):
        config = dataclasses.replace(CONFIG, scope=asked)
        assert settle_initial_adapter(start, run, config) == (
            start,
            dataclasses.replace(config, scope=scope),
        )
    other = dataclasses.replace(CONFIG, scope="all" if scope == "answer" else "answer")
    with pytest.raises(UsageError, match=rf"acts on .*; use `scope={scope}`"):
        settle_initial_adapter(start, run, other)
