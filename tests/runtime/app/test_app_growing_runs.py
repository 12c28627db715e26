"""Examples that are added while a run goes on: kept, used, resumed and replayed to the bit."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batches
from edgezo_runtime.errors import DataError, RunFileError, UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.step_record import RecordExtra
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.replay import replay
from tests.conftest import Exported
from tests.runtime.growing_runs import ARRIVALS, BEGINNING, CONFIG, all_examples, grow, slice_of
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, losses_of, run_to_the_end, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

CONFIGS = {
    "two-point": method_config("zo-sgd", lr=0.01, eps=0.01, blocks="all", scope="all", **CONFIG),
    "answers": method_config("zo-adam", lr=0.01, eps=0.01, blocks="1", scope="answer", **CONFIG),
    "per-example": method_config("auto", first_order=0, lr=0.01, eps=0.01, blocks="1", **CONFIG),
    "further": method_config("mezo-svrg", lr=0.01, eps=0.01, blocks="all", **CONFIG),
    "first_order": method_config(
        "zo-sgd", lr=0.01, eps=0.01, first_order=1, first_order_lr=0.01, **CONFIG
    ),
    "first-order": method_config("auto", first_order=2, first_order_lr=0.01, **CONFIG),
}


def extra_rows(folder: Path) -> list[int]:
    """Examples that every recorded step of an estimating run had."""
    records = read_journal(folder / "journal.bin").records
    return [RecordExtra.unpack(record.extra, 0).rows or BEGINNING for record in records]


def test_a_step_is_taken_on_what_there_is(whole: Whole) -> None:
    folder, _ = whole("two-point")
    assert extra_rows(folder) == [4, 4, 7, 8, 8, 8, 8]
    batches = [record.losses.shape[1] for record in read_journal(folder / "journal.bin").records]
    assert batches == [1] * 7  # means over the batch


Whole = Callable[[str], tuple[Path, dict[str, bytes]]]


@pytest.fixture(scope="module")
def whole(exported: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The folder of a run that nothing interrupts, only to be read, and its last bits."""
    bundle = exported("llama").bundle("fp32").bundle

    @functools.cache
    def run(name: str) -> tuple[Path, dict[str, bytes]]:
        folder = tmp_path_factory.mktemp(name)
        return folder, grow(bundle, CONFIGS[name], folder)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_cut_run_ends_with_the_same_bits(
    bundle: Bundle, whole: Whole, tmp_path: Path, name: str
) -> None:
    _, expected = whole(name)
    for steps in (2, 3):
        folder = tmp_path / str(steps)
        grow(bundle, CONFIGS[name], folder, until=steps)
        if steps % 2:  # the last step is lost
            journal = folder / "journal.bin"
            os.truncate(journal, journal.stat().st_size - 3)
        assert grow(bundle, CONFIGS[name], folder) == expected, steps


@pytest.mark.parametrize("name", CONFIGS)
def test_the_journal_alone_is_enough(
    bundle: Bundle, whole: Whole, tmp_path: Path, name: str
) -> None:
    folder, expected = whole(name)
    found = replay(bundle, Path(shutil.copy(folder / "journal.bin", tmp_path)))
    assert state_bits(found.state) == expected


def test_what_is_kept_of_prompts_changes_nothing(
    bundle: Bundle, whole: Whole, tmp_path: Path
) -> None:
    for name in ("answers", "per-example"):
        folder, _ = whole(name)
        without = dataclasses.replace(CONFIGS[name], prefix_cache=False)
        grow(bundle, without, tmp_path / f"{name}-without")
        kept = losses_of(folder / "journal.bin")
        fresh = losses_of(tmp_path / f"{name}-without" / "journal.bin")
        for one, other in zip(kept, fresh, strict=True):  # what is kept is float16
            np.testing.assert_allclose(
                np.frombuffer(one, np.float32), np.frombuffer(other, np.float32), rtol=2e-2
            )


def test_a_run_without_additions_is_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    examples = all_examples(bundle)
    run_to_the_end(bundle, examples, CONFIGS["two-point"], tmp_path)
    assert not (tmp_path / "examples.bin").exists()
    for record in read_journal(tmp_path / "journal.bin").records:
        assert len(record.extra) == 4


def test_examples_that_come_after_the_end_bring_more_steps(bundle: Bundle, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIGS["two-point"], steps=0, epochs=2.0, lr_schedule="linear")
    everything = all_examples(bundle)
    with Tuner.open(bundle, slice_of(everything, 0, 4), config, tmp_path) as tuner:
        rates = [report.lr for report in tuner]
        assert (tuner.step_number, tuner.done, tuner.status.phase) == (2, True, "done")
        assert tuner.add(slice_of(everything, 4, 8)) == 8
        assert not tuner.done
        assert tuner.status.examples == 8
        assert tuner.status.fraction_done == pytest.approx(0.5)
        rates += [report.lr for report in tuner]
        assert tuner.step_number == 4
        assert rates == pytest.approx([0.01 * f for f in (0.75, 0.25, 3 / 8, 1 / 8)])


def test_others_add_while_one_steps(bundle: Bundle, tmp_path: Path) -> None:
    """Whatever the moments, what was recorded replays, and nothing that was added is lost."""
    config = dataclasses.replace(CONFIGS["answers"], steps=40)
    everything = random_set("labels", SIZES * 4, bundle.manifest.tokenizer.pad_id)
    with Tuner.open(bundle, everything.first(2), config, tmp_path) as tuner:
        stepping = tuner.run_in_background()

        def add(start: int) -> None:
            for number in range(start, 30, 2):
                tuner.add(slice_of(everything, number, number + 1))
                time.sleep(0.002)

        threads = [threading.Thread(target=add, args=[start]) for start in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stepping.join(60)
        assert len(tuner.examples) == 30
        expected = state_bits(tuner.run.state)
        added = {example.tokens.tobytes() for example in tuner.examples}
    assert added == {example.tokens.tobytes() for example in everything.examples[:30]}
    assert state_bits(replay(bundle, tmp_path / "journal.bin").state) == expected
    with Tuner.open(bundle, everything.first(2), config, tmp_path) as tuner:
        assert state_bits(tuner.run.state) == expected
        assert len(tuner.examples) == 30


def test_a_background_that_keeps_going_takes_what_comes(bundle: Bundle, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIGS["two-point"], steps=0, epochs=1.0)
    everything = all_examples(bundle)
    with Tuner.open(bundle, everything.first(4), config, tmp_path) as tuner:
        stepping = tuner.run_in_background(keep_going=True)
        for count in (4, 8):
            assert stepping.running
            if count == 8:
                tuner.add(slice_of(everything, 4, 8))
            while tuner.step_number < count // 4:
                time.sleep(0.001)
        tuner.cancel()
        assert stepping.join(10)
        assert tuner.step_number == 2


# --- what is refused ---


def test_examples_of_another_kind_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    everything = all_examples(bundle)
    pad = everything.pad_id
    with Tuner.open(bundle, everything.first(4), CONFIGS["answers"], tmp_path) as tuner:
        for other, message in (
            (random_set("completion", (5,), pad), "kind completion"),
            (random_set("labels", (5,), pad, labels=((5,), (9,), (7,))), "kind labels"),
            (random_set("labels", (65,), pad), "a row of 65 tokens; the run is planned for 64"),
        ):
            with pytest.raises(DataError, match=message):
                tuner.add(other)
        with pytest.raises(UsageError, match="open it with rows"):
            tuner.add([{"text": "a"}])
        assert len(tuner.examples) == 4
    assert not (tmp_path / "examples.bin").exists()
    with pytest.raises(UsageError, match="closed"):
        tuner.add(everything)


def test_a_full_disk_adds_nothing(bundle: Bundle, tmp_path: Path, monkeypatch: Any) -> None:
    everything = all_examples(bundle)
    with Tuner.open(bundle, everything.first(4), CONFIGS["two-point"], tmp_path) as tuner:
        tuner.add(slice_of(everything, 4, 5))
        size = (tmp_path / "examples.bin").stat().st_size

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("edgezo_runtime.journal.record_log.sync_descriptor", full)
            with pytest.raises(RunFileError, match="No space left"):
                tuner.add(slice_of(everything, 5, 6))
        assert (tmp_path / "examples.bin").stat().st_size == size
        assert tuner.add(slice_of(everything, 5, 6)) == 6
        tuner.step()
    with Tuner.open(bundle, everything.first(4), CONFIGS["two-point"], tmp_path) as tuner:
        assert len(tuner.examples) == 6


def test_a_journal_that_knows_more_examples_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    grow(bundle, CONFIGS["two-point"], tmp_path)
    file = tmp_path / "examples.bin"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(RunFileError, match=r"7 examples, and the journal has a step with 8"):
        grow(bundle, CONFIGS["two-point"], tmp_path)


def test_what_reading_refuses_is_not_added(bundle: Bundle, tmp_path: Path) -> None:
    """A run that takes it could never be opened again."""
    everything = all_examples(bundle)
    vocabulary = bundle.manifest.model.vocab_size
    one = everything.examples[4]
    with Tuner.open(bundle, everything.first(4), CONFIGS["two-point"], tmp_path) as tuner:
        for changed, message in (
            (dataclasses.replace(one, tokens=one.tokens + vocabulary), "none of the model's"),
            (dataclasses.replace(one, places=one.places + 60), "scored places"),
            (dataclasses.replace(one, label=9), "class 9 among"),
        ):
            bad = dataclasses.replace(everything, examples=(one, changed))
            with pytest.raises(DataError, match=f"example 2 of those to be added: .*{message}"):
                tuner.add(bad)
        assert tuner.add(slice_of(everything, 4, 5)) == 5
    with Tuner.open(bundle, everything.first(4), CONFIGS["two-point"], tmp_path) as tuner:
        assert len(tuner.examples) == 5


def test_what_was_added_while_another_opened_is_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: Any
) -> None:
    """The one that opens has looked at the folder already, and waits for it to be let go."""
    everything, config = all_examples(bundle), CONFIGS["two-point"]
    first = Tuner.open(bundle, everything.first(4), config, tmp_path)
    start = Tuner.start

    def late(self: Tuner, *, resume: bool = True) -> None:
        first.add(slice_of(everything, 4, 5))
        first.step()
        first.close()
        start(self, resume=resume)

    with monkeypatch.context() as patch:
        patch.setattr(Tuner, "start", late)
        second = Tuner.open(bundle, everything.first(4), config, tmp_path)
    with second:
        assert (second.step_number, len(second.examples)) == (1, 5)
        second.add(slice_of(everything, 5, 6))
    with Tuner.open(bundle, everything.first(4), config, tmp_path) as third:
        found = [example.tokens.tolist() for example in third.examples]
    assert found == [example.tokens.tolist() for example in everything.examples[:6]]


def test_closing_waits_for_what_is_being_added(
    bundle: Bundle, tmp_path: Path, monkeypatch: Any
) -> None:
    everything = all_examples(bundle)
    tuner = Tuner.open(bundle, everything.first(4), CONFIGS["two-point"], tmp_path)
    inside, go_on = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        inside.set()
        assert go_on.wait(30)
        os.fstat(descriptor)  # is open still

    monkeypatch.setattr("edgezo_runtime.journal.record_log.sync_descriptor", slow)
    found: list[int | Exception] = []

    def add() -> None:
        try:
            found.append(tuner.add(slice_of(everything, 4, 5)))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=add), threading.Thread(target=tuner.close)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    time.sleep(0.1)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert found == [5]
    assert tuner.closed


def test_examples_without_their_journal_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    grow(bundle, CONFIGS["two-point"], tmp_path, until=1)
    (tmp_path / "journal.bin").unlink()
    with pytest.raises(RunFileError, match="whose journal is gone"):
        grow(bundle, CONFIGS["two-point"], tmp_path)


# --- the order ---


def test_an_epoch_over_all_begins_where_examples_are_added() -> None:
    everything = random_set("labels", range(3, 23), 0)
    batches = Batches(everything.first(8), 4, seed=3)
    before = [batches.indices(step) for step in range(5)]
    assert [sorted(chain(*before[i : i + 2])) for i in (0, 2)] == [list(range(8))] * 2
    batches.grow(everything, 5)
    after = [batches.indices(step) for step in range(5, 10)]
    assert sorted(chain(*after)) == list(range(20))
    again = Batches(everything.first(8), 4, seed=3)
    again.grow(everything.first(9), 2)
    again.grow(everything, 5)
    assert [again.indices(step) for step in range(5, 10)] == after
    with pytest.raises(UsageError, match="5 or more"):
        again.indices(4)


def test_small_batches_fill_up() -> None:
    everything = random_set("labels", range(3, 23), 0)
    batches = Batches(everything.first(2), 4, seed=0)
    assert batches.batch(0).num_examples == 2
    batches.grow(everything.first(3), 1)
    assert batches.batch(1).num_examples == 3
    batches.grow(everything, 2)
    assert batches.batch(2).num_examples == 4
    assert ARRIVALS  # see growing_runs
