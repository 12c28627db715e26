"""Tune inside your own program, one step at a time.

    pip install 'edgezo[cpu,export]'
    python examples/tune_in_an_app.py

A device learns which of its functions an utterance is about. Prints the accuracy on unseen
utterances before and after 50 steps, and the loss of every tenth step:

    before: accuracy 0.38 on 104 utterances
    ...
    after 50 steps: accuracy 0.84 on 104 utterances

Takes about half a minute on two cores, after one export of the default model. An argument names
another bundle. The loop is yours: between two steps the program can do other work, stop, or take a
snapshot. If it was stopped, the next call resumes the run; remove its folder to begin again.
"""

import sys
from pathlib import Path

from edgezo import TuneConfig, Tuner, default_bundle

intents = ["light", "music", "timer", "weather", "message", "map", "volume", "heat"]
data = Path(__file__).parent.parent / "edgezo" / "data" / "device_commands"

print("A device learns which function an utterance is about; takes about half a minute.")
with Tuner.open(
    sys.argv[1] if sys.argv[1:] else default_bundle(),
    data / "train.jsonl",
    TuneConfig(steps=50),
    run="run-in-an-app",
    template='"{text}" is about the',
    labels=[f" {intent}" for intent in intents],
    max_seq=64,
    budget="2GB",
) as tuner:
    if tuner.step_number:
        print(f"run-in-an-app holds a run of {tuner.step_number} steps; it is resumed")
    else:
        found = tuner.evaluate(data / "valid.jsonl")
        print(f"before: accuracy {found.accuracy:.2f} on {found.rows} utterances")
    for report in tuner:
        if (report.step + 1) % 10 == 0:
            print(f"step {report.step + 1}: loss {report.loss:.3f}, {report.elapsed_s:.2f} s")
    found = tuner.evaluate(data / "valid.jsonl")
    print(f"after {tuner.step_number} steps: ", end="")
    print(f"accuracy {found.accuracy:.2f} on {found.rows} utterances")
