"""The log of added examples: every incomplete end is truncated, every other change is noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.errors import DataError, EdgezoError, RunFileError
from edgezo_runtime.journal.example_log import ExampleLog
from tests.runtime.growing_runs import BEGINNING
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def initial() -> ExampleSet:
    return random_set("labels", SIZES, 0).first(BEGINNING)


def filled(path: Path, initial: ExampleSet) -> list[bytes]:
    """A file of three records, and its bytes after each."""
    log = ExampleLog(path, "run", initial, 97)
    found = []
    for start, end in ((3, 4), (4, 7), (7, 8)):
        log.append(random_set("labels", SIZES, 0).examples[start:end], start)
        found.append(path.read_bytes())
    log.close()
    return found


def same(found: tuple[Example, ...], expected: tuple[Example, ...]) -> bool:
    fields = [
        (one.example_id, one.line, one.label, one.tokens.tolist(), one.places.tolist())
        == (other.example_id, other.line, other.label, other.tokens.tolist(), other.places.tolist())
        for one, other in zip(found, expected, strict=True)
    ]
    return all(fields)


def test_a_file_of_examples_reads_as_it_was_written(tmp_path: Path, initial: ExampleSet) -> None:
    filled(tmp_path / "x", initial)
    log = ExampleLog(tmp_path / "x", "run", initial, 97)
    assert log.incomplete_bytes == 0
    assert [log.count_at(step) for step in range(9)] == [3, 3, 3, 4, 7, 7, 7, 8, 8]
    assert same(log.examples.examples, random_set("labels", SIZES, 0).examples)


def test_many_small_records_are_put_together_once(
    tmp_path: Path, initial: ExampleSet, monkeypatch: Any
) -> None:
    """A copy of all that there is at each of them would take hours for a million."""
    filled(tmp_path / "x", initial)
    calls, plus = [0], ExampleSet.plus

    def counted(self: ExampleSet, more: Any) -> ExampleSet:
        calls[0] += 1
        return plus(self, more)

    monkeypatch.setattr(ExampleSet, "plus", counted)
    assert len(ExampleLog(tmp_path / "x", "run", initial, 97).examples) == 8
    assert calls == [1]


def test_what_an_interrupt_left_is_truncated(tmp_path: Path, initial: ExampleSet) -> None:
    """One between the write and the count of it: nobody was told of the examples."""
    path = tmp_path / "x"
    log = ExampleLog(path, "run", initial, 97)
    log.append(random_set("labels", SIZES, 0).examples[3:4], 3)
    with path.open("ab") as file:
        file.write(path.read_bytes()[44:])
    log.append(random_set("labels", SIZES, 0).examples[4:], 4)
    log.close()
    again = ExampleLog(path, "run", initial, 97)
    assert same(again.examples.examples, random_set("labels", SIZES, 0).examples)


def test_every_incomplete_end_is_truncated(tmp_path: Path, initial: ExampleSet) -> None:
    path = tmp_path / "x"
    _, two, three = filled(path, initial)
    for length in range(len(two) + 1, len(three)):
        path.write_bytes(three[:length])
        log = ExampleLog(path, "run", initial, 97)
        assert (len(log.examples), log.incomplete_bytes) == (7, length - len(two))
        log.append(random_set("labels", SIZES, 0).examples[7:], 7)
        log.close()
        assert path.read_bytes() == three


def test_every_changed_byte_is_noticed(tmp_path: Path, initial: ExampleSet) -> None:
    path = tmp_path / "x"
    _, two, three = filled(path, initial)
    for place in range(len(three)):
        path.write_bytes(three[:place] + bytes([three[place] ^ 0x40]) + three[place + 1 :])
        if place >= len(two):  # the last record may be incomplete
            assert len(ExampleLog(path, "run", initial, 97).examples) == 7
            continue
        with pytest.raises(EdgezoError, match=r"damaged|version|another run|not a file of"):
            ExampleLog(path, "run", initial, 97)


def test_a_file_of_another_run_is_refused(tmp_path: Path, initial: ExampleSet) -> None:
    filled(tmp_path / "x", initial)
    with pytest.raises(RunFileError, match="another run"):
        ExampleLog(tmp_path / "x", "other", initial, 97)


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path: Path, initial: ExampleSet) -> None:
    filled(tmp_path / "x", initial)
    with pytest.raises(RunFileError, match="none of the model's 20"):
        ExampleLog(tmp_path / "x", "run", initial, 20)


def test_a_write_that_cannot_be_undone_is_the_last(
    tmp_path: Path, initial: ExampleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = random_set("labels", SIZES, 0).examples
    log = ExampleLog(tmp_path / "x", "run", initial, 97)
    log.append(examples[3:4], 3)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    class Stuck:
        """A file that cannot be truncated."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def truncate(self, size: int) -> int:
            raise OSError(5, "Input/output error")

    assert log._writer is not None
    log._writer._file = Stuck(log._writer._file)  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        patch.setattr("edgezo_runtime.journal.record_log.sync_descriptor", full)
        with pytest.raises(RunFileError, match="No space left on device; the examples were not"):
            log.append(examples[4:5], 4)
    assert len(log.examples) == 4
    for _ in range(2):
        with pytest.raises(RunFileError, match="could not be undone; open the run again"):
            log.append(examples[4:5], 4)
        log.close()


def test_examples_of_another_kind_are_not_added(tmp_path: Path, initial: ExampleSet) -> None:
    log = ExampleLog(tmp_path / "x", "run", initial, 97)
    wrong = dataclasses.replace(random_set("labels", SIZES, 0).examples[3], label=9)
    with pytest.raises(DataError, match="example 1 of those to be added: an example of class 9"):
        log.append([wrong], 3)
    assert not (tmp_path / "x").exists()
