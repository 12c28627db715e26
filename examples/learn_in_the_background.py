"""An assistant that learns its user's commands in the background and answers between steps.

    pip install 'edgezo[cpu,export]'
    python examples/learn_in_the_background.py

The run begins with 8 utterances and receives 80 more. The program answers each at once, with the
blocks that the background thread tunes; then the user's correction becomes an example. Prints how
many of every 20 utterances were understood, and the accuracy on unseen ones before and after:

    before: accuracy 0.38 on 104 utterances
    utterances 1 to 20: 8 of 20 understood
    ...
    after: accuracy 0.72 on 104 utterances, 161 steps on 88 examples

Takes about a minute on two cores, after one export of the default model. An argument names another
bundle. If it was stopped, the next call resumes the run in the folder "assistant"; remove that
folder to begin again. On a laptop, add governors="mains,thermal".
"""

import json
import sys
import time
from pathlib import Path

from edgezo import Event, StepEvent, TuneConfig, Tuner, default_bundle

intents = ["light", "music", "timer", "weather", "message", "map", "volume", "heat"]
data = Path(__file__).parent.parent / "edgezo" / "data" / "device_commands"
rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
known = [next(row for row in rows if row["label"] == number) for number in range(len(intents))]
to_come = [row for row in rows if row not in known][:80]


def show(event: Event) -> None:
    """Print an event, in a thread of edgezo; an exception here would not end the run."""
    if isinstance(event, StepEvent) and event.step % 25 == 0:
        print(f"  (step {event.step}: loss {event.report.loss:.2f})")


print("An assistant learns its user's commands while it answers; takes about a minute.")
with Tuner.open(
    sys.argv[1] if sys.argv[1:] else default_bundle(),
    known,
    TuneConfig(epochs=8, batch_size=8),
    run="assistant",
    template='"{text}" is about the',
    labels=[f" {intent}" for intent in intents],
    max_seq=64,
    budget="2GB",
) as tuner:
    met = len(tuner.examples) - len(known)  # in earlier sessions
    if met:
        print(f"the run in the folder assistant has met {met} utterances; it is resumed")
    else:
        found = tuner.evaluate(data / "valid.jsonl")
        print(f"before: accuracy {found.accuracy:.2f} on {found.rows} utterances")
    tuner.subscribe(show)
    learning = tuner.run_in_background(keep_going=True)
    right = 0
    for number, row in enumerate(to_come[met:], met + 1):
        with tuner.paused("the user speaks"):  # takes effect within one block
            answer = tuner.classify(row["text"])
        right += answer.index == row["label"]
        tuner.add([row])  # on the disk when it returns; used from the next step on
        if number % 20 == 0:
            print(f"utterances {number - 19} to {number}: {right} of 20 understood")
            right = 0
        goal = tuner.step_number + 2
        while tuner.step_number < goal and not tuner.done:  # users pause between utterances
            time.sleep(0.01)
    tuner.cancel()  # takes effect between two blocks; the state is saved
    learning.join()
    found = tuner.evaluate(data / "valid.jsonl")
    print(f"after: accuracy {found.accuracy:.2f} on {found.rows} utterances, ", end="")
    print(f"{tuner.status.step} steps on {tuner.status.examples} examples")
