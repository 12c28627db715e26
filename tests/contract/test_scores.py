"""Methods that need losses only optimize scores of classes and of generated texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.questions import Question, QuestionSet, prompt_of
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.training.replay import replay
from tests.contract.methods_table import TABLE
from tests.contract.test_resume import short_config
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, resumed_bits, run_to_the_end, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

FAST = {"auto", "zo-sgd", "zo-sgd-cons", "mezo-svrg"}
METHODS = [m if m in FAST else pytest.param(m, marks=pytest.mark.slow) for m in TABLE]


def share_of_even(text: str, row: object) -> float:
    """Of the words of a text; 0 where there are none."""
    numbers = [int(word[1:]) for word in text.split()]
    return sum(number % 2 == 0 for number in numbers) / max(1, len(numbers))


def questions_of(bundle: Bundle) -> QuestionSet:
    """Random ones."""
    examples = random_set("completion", SIZES, bundle.manifest.tokenizer.pad_id)
    questions = tuple(Question(prompt_of(example), ("w11",), {}) for example in examples)
    return QuestionSet(
        examples, questions, TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)
    )


@pytest.mark.parametrize("method", METHODS)
def test_accuracy(bundle: Bundle, tmp_path: Path, method: str) -> None:
    """Losses are shares of wrong rows, and an interrupted run ends with the same bits."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    config = short_config(method, objective="accuracy", batch_size=4)
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    records = list(read_journal(tmp_path / "whole" / "journal.bin").records)
    for record in records:
        np.testing.assert_allclose(record.losses * 4, np.round(record.losses * 4), atol=1e-6)
        assert (record.losses <= 1).all()
        assert (record.losses >= 0).all()
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", 3, cut=5) == whole


@pytest.mark.parametrize("method", METHODS)
def test_rewards(bundle: Bundle, tmp_path: Path, method: str) -> None:
    """Losses are minus rewards, and the journal alone has all there is to the run."""
    config = short_config(method, steps=2, batch_size=4, max_new_tokens=4)
    questions = questions_of(bundle)
    folder = tmp_path / "run"
    whole = run_to_the_end(bundle, questions, config, folder, reward=share_of_even)
    records = list(read_journal(folder / "journal.bin").records)
    assert len(records) == 2
    assert all((record.losses >= -1).all() for record in records)
    assert all((record.losses <= 0).all() for record in records)
    assert any((record.losses < 0).any() for record in records)
    assert state_bits(replay(bundle, folder / "journal.bin").state) == whole
