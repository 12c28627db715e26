"""Tune for a reward: a function of yours scores the answers, and nobody knows the right ones.

    pip install 'edgezo[cpu,export]'
    python examples/tune_for_a_reward.py

A model that was told to give short answers begins few of them with yes or no. The reward is 1 for
an answer that does, else 0. It has no gradient, so the steps compare answers of slightly changed
models. Greedy answers to 64 questions about things that no step has seen show the effect:

    before: mean reward 0.27 +- 0.06
      Is a train fast? A train is not fast. A train is a type of...
    ...
    after: mean reward 0.94 +- 0.03
      Is a train fast? No, a train is not fast. A train is a...
    gain: 0.67 +- 0.06

The reward looks at the form only, so the model may well say no where yes is true: it learns what
the function asks for, and nothing else.

Takes about a minute and a half on two cores, after one export of the default model. An argument
names another bundle, of a model with a chat template.
"""

import sys
from collections.abc import Mapping
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from edgezo import GenerationConfig, TuneConfig, Tuner, default_bundle

QUALITIES = ["hot", "heavy", "sweet", "fast", "soft", "expensive", "dangerous", "alive"]
THINGS = ["fire", "ice", "snow", "a stone", "a feather", "sugar", "a lemon", "honey", "the sea"]
THINGS += ["a car", "a snail", "an elephant", "a mouse", "glass", "wool", "gold", "a river"]
UNSEEN = ["bread", "chocolate", "a bee", "a tiger", "a train", "soup", "a candle", "a cloud"]


def conversations(things: list[str]) -> list[list[dict[str, str]]]:
    """A question about every quality of every thing."""
    told = {"role": "system", "content": "Give short answers."}
    asked = [f"Is {thing} {quality}?" for thing in things for quality in QUALITIES]
    return [[told, {"role": "user", "content": question}] for question in asked]


def reward(text: str, row: Mapping[str, Any]) -> float:
    """1 for an answer that begins with yes or no."""
    words = text.split() or [""]
    return float(words[0].strip(".,:;!").lower() in ("yes", "no"))


def measure(tuner: Tuner, when: str) -> list[float]:
    """Print the mean reward of answers to unseen questions with its standard error, and answers."""
    unseen = conversations(UNSEEN)
    rewards = [reward(tuner.generate(asked, GenerationConfig(2)), {}) for asked in unseen]
    error = stdev(rewards) / len(rewards) ** 0.5
    print(f"{when}: mean reward {fmean(rewards):.2f} +- {error:.2f}")
    for asked in unseen[5::15]:
        answer = tuner.generate(asked, GenerationConfig(12))
        print(f"  {asked[-1]['content']} {answer.strip()}...")
    return rewards


print("A model learns to begin its answers with yes or no; takes about a minute and a half.")
bundle = sys.argv[1] if sys.argv[1:] else default_bundle()
answer = {"role": "assistant", "content": "No."}  # edgezo measures the size of changes by it
rows = [{"messages": [*asked, answer]} for asked in conversations(THINGS)]
# Two tokens show the first word. The run is short, so its rate is above that of "auto".
config = TuneConfig(steps=30, lr=1, max_new_tokens=2)
with (
    TemporaryDirectory() as run,
    Tuner.open(bundle, rows, config, run, max_seq=64, reward=reward) as tuner,
):
    before = measure(tuner, "before")
    for report in tuner:
        if (report.step + 1) % 5 == 0:  # a step generates 32 answers, with changes both ways
            print(f"step {report.step + 1}: mean reward {-report.loss:.2f}")
    after = measure(tuner, "after")
gains = [new - old for new, old in zip(after, before, strict=True)]
print(f"gain: {fmean(gains):.2f} +- {stdev(gains) / len(gains) ** 0.5:.2f}")
