"""Tune inside your own program, one step at a time.

    edgezo export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.bundle
    python examples/tune_in_an_app.py smollm2.bundle

Prints the loss of every tenth step, then the accuracy on utterances the tuner has not seen; takes
about a minute on two cores. The loop is yours: between two steps the program can do other work,
stop, or take a snapshot, and running the script again continues where it left off.
"""

import sys
from pathlib import Path

from edgezo import Tuner
from edgezo_runtime.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.examples import load_examples
from edgezo_runtime.tokenizer import TextTokenizer

bundle = Bundle.open(sys.argv[1])
tokenizer = TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)

# What a device learns: which of its functions an utterance is about.
intents = ["light", "music", "timer", "weather", "message", "map", "volume", "heat"]
task = {
    "template": '"{text}" is about the',
    "labels": [f" {intent}" for intent in intents],
    "max_seq": 64,
}
data = Path(__file__).parent.parent / "edgezo" / "data" / "device_commands"
train = load_examples(data / "train.jsonl", tokenizer, **task)
unseen = load_examples(data / "valid.jsonl", tokenizer, **task)

config = TuneConfig(steps=50, max_time_s=0)
with Tuner.open(bundle, train, config, "run-in-an-app", resume=True) as tuner:
    for report in tuner:
        if report.step % 10 == 0:
            print(f"step {report.step}: loss {report.loss:.3f}, {report.elapsed_s:.2f} s")
    accuracy = tuner.evaluate(unseen).accuracy
    print(f"{tuner.step_number} steps, accuracy {accuracy:.2f} on {len(unseen)} utterances")
