"""Chats: a tuned model writes its answer and stops where its template ends a turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo import GenerationConfig, Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.questions import make_questions
from edgezo_runtime.data.sources import open_reader, open_tokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.evaluation.evaluate import evaluate_answers
from edgezo_runtime.generation.generator import Generator
from edgezo_runtime.methods.catalogue import method_config
from tests.runtime.chat_bundle import chat_bundle
from tests.runtime.tiny_tokenizer import BOS, EOS

pytestmark = pytest.mark.usefixtures("unsynced")

ROWS = [
    {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
    for ask, answer in (("great film", " Yes"), ("terrible story", " No"))
]
CONFIG = method_config(
    "zo-sgd", lr=0.05, eps=0.1, steps=150, max_time_s=0, batch_size=2, first_order=2,
    first_order_lr=0.02,
)  # fmt: skip
NEW = GenerationConfig(12)


@pytest.fixture
def chatty(tmp_path: Path) -> Bundle:
    """A bundle that spells, with that template."""
    return chat_bundle(tmp_path / "bundle")


@pytest.mark.slow
def test_a_tuned_chat_writes_its_answer_and_stops(chatty: Bundle, tmp_path: Path) -> None:
    """It wrote on to the limit: exact match was 0 after tuning."""
    assert chatty.manifest.tokenizer.eos_ids == (EOS,)
    with Tuner.open(chatty, ROWS, CONFIG, tmp_path / "run") as tuner:
        for _ in tuner:
            pass
        assert tuner.generate([ROWS[0]["messages"][0]], NEW) == " Yes"
        adapter = tuner.adapter()
    generator = Generator(Engine(chatty), open_tokenizer(chatty))
    assert generator.ends == {EOS, BOS}
    questions = make_questions(open_reader(chatty, None, (), None), ROWS)
    found = evaluate_answers(generator, adapter, questions, NEW)
    assert (found.exact_match, found.answers) == (1.0, ("Yes", "No"))
    texts = generator.generate(questions.prompts, adapter, NEW)
    assert {text.finish for text in texts} == {"end"}
    generator.ends = frozenset(chatty.manifest.tokenizer.eos_ids)
    texts = generator.generate(questions.prompts, adapter, NEW)
    assert {text.finish for text in texts} == {"length"}  # what the template adds is needed
