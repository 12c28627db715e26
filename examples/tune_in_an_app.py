"""Tune inside your own program, one step at a time.

    edgezo export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.bundle
    python examples/tune_in_an_app.py smollm2.bundle

Prints the loss of every tenth step, then the accuracy on unseen utterances; takes about a minute on
two cores. The loop is yours: between two steps the program can do other work, stop, or take a
snapshot. Running the script again resumes.
"""

import sys
from pathlib import Path

from edgezo import TuneConfig, Tuner

# The device learns which of its functions an utterance is about.
intents = ["light", "music", "timer", "weather", "message", "map", "volume", "heat"]
data = Path(__file__).parent.parent / "edgezo" / "data" / "device_commands"

with Tuner.open(
    sys.argv[1],
    data / "train.jsonl",
    TuneConfig(steps=50, max_time_s=0),
    run="run-in-an-app",
    template='"{text}" is about the',
    labels=[f" {intent}" for intent in intents],
    max_seq=64,
    budget="2GB",
) as tuner:
    for report in tuner:
        if report.step % 10 == 0:
            print(f"step {report.step}: loss {report.loss:.3f}, {report.elapsed_s:.2f} s")
    found = tuner.evaluate(data / "valid.jsonl")
    print(f"{tuner.step_number} steps, accuracy {found.accuracy:.2f} on {found.rows} utterances")
