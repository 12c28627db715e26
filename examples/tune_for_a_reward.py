"""Tune for what a function of yours likes: no gradient, no right answers; a text in, a number out.

    edgezo export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.bundle
    python examples/tune_for_a_reward.py smollm2.bundle

The reward wants short answers that begin with a capital letter. Prints the mean reward of every
step, then an answer before and after; takes some minutes on two cores. The rows have answers, from
which step size and perturbation are measured; the reward never sees them.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgezo import Tuner
from edgezo_runtime.answers import load_questions
from edgezo_runtime.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.generator import Generator, Writing
from edgezo_runtime.tokenizer import TextTokenizer

QUESTIONS = {
    "What is the capital of France": "Paris",
    "Which planet is the largest": "Jupiter",
    "Who wrote Hamlet": "Shakespeare",
    "Which metal is liquid in a warm room": "Mercury",
}


def reward(text: str, row: Mapping[str, Any]) -> float:
    """1 for a capital letter at the start, less a tenth for every word beyond three."""
    return float(text[:1].isupper()) - 0.1 * max(0, len(text.split()) - 3)


bundle = Bundle.open(sys.argv[1])
tokenizer = TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)
rows = Path("questions.jsonl")
rows.write_text(
    "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in QUESTIONS.items())
)
questions = load_questions(rows, tokenizer, template="{question}?", max_seq=64)


def first_answer(tuner: Tuner) -> str:
    """What the model says to the first question."""
    generator = Generator(tuner.engine, tokenizer)
    (text,) = generator.generate(questions.prompts[:1], tuner.adapter(), Writing(12))
    return text.stream.text.strip()


config = TuneConfig(steps=10, max_time_s=0, max_new_tokens=12, batch_size=4)
with Tuner.open(bundle, questions, config, "run-for-a-reward", reward=reward) as tuner:
    print(f"before: {first_answer(tuner)!r:.60}")
    for report in tuner:
        print(f"step {report.step}: mean reward {-report.loss:.3f}")
    print(f"after: {first_answer(tuner)!r:.60}, mean reward {tuner.score(questions):.3f}")
