"""Tune for a reward function of your own, which scores a text: no gradient, no right answers.

    edgezo export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.bundle
    python examples/tune_for_a_reward.py smollm2.bundle

The reward favours short answers that begin with a capital letter. Prints an answer before tuning,
the mean reward of every step, and the answer after tuning; takes some minutes on two cores. The
answers in the rows serve to measure learning rate and perturbation scale; the reward ignores them.
"""

import sys
from collections.abc import Mapping
from typing import Any

from edgezo import GenerationConfig, TuneConfig, Tuner

QUESTIONS = {
    "What is the capital of France": "Paris",
    "Which planet is the largest": "Jupiter",
    "Who wrote Hamlet": "Shakespeare",
    "Which metal is liquid in a warm room": "Mercury",
}


def reward(text: str, row: Mapping[str, Any]) -> float:
    """1 for a capital letter at the start, less a tenth for every word beyond three."""
    return float(text[:1].isupper()) - 0.1 * max(0, len(text.split()) - 3)


rows = [{"question": question, "answer": answer} for question, answer in QUESTIONS.items()]
config = TuneConfig(steps=10, max_time_s=0, max_new_tokens=12, batch_size=4)
with Tuner.open(
    sys.argv[1],
    rows,
    config,
    "run-for-a-reward",
    template="{question}?",
    max_seq=64,
    reward=reward,
) as tuner:
    print(f"before: {tuner.generate(rows[0], GenerationConfig(12)).strip()!r:.60}")
    for report in tuner:
        print(f"step {report.step}: mean reward {-report.loss:.3f}")
    after = tuner.generate(rows[0], GenerationConfig(12)).strip()
    print(f"after: {after!r:.60}, mean reward {tuner.score(rows):.3f}")
