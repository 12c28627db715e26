"""An assistant that learns its user's commands in the background and answers between steps.

    edgezo export HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.bundle
    python examples/learn_in_the_background.py smollm2.bundle

The run begins with 8 utterances and receives 80 more. The program answers each at once, with the
blocks that the background thread tunes; then the user's correction becomes an example. Prints how
many of every 20 utterances were understood, and the events of the run; takes a minute on two cores.
Run the script again to resume. On a laptop, add governors="mains,thermal".
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

from edgezo import Event, StepEvent, TuneConfig, Tuner

intents = ["light", "music", "timer", "weather", "message", "map", "volume", "heat"]
data = Path(__file__).parent.parent / "edgezo" / "data" / "device_commands"
rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
known = [next(row for row in rows if row["label"] == number) for number in range(len(intents))]
to_come = [row for row in rows if row not in known][:80]

counts: Counter[str] = Counter()


def count(event: Event) -> None:
    """Count an event, in a thread of edgezo; an exception here would not end the run."""
    counts[type(event).__name__] += 1
    if isinstance(event, StepEvent) and event.step % 25 == 0:
        print(f"  (step {event.step}: loss {event.report.loss:.2f})")


with Tuner.open(
    sys.argv[1],
    known,
    TuneConfig(max_time_s=0, epochs=8, batch_size=8),
    run="assistant",
    template='"{text}" is about the',
    labels=[f" {intent}" for intent in intents],
    max_seq=64,
    budget="2GB",
) as tuner:
    tuner.subscribe(count)
    learning = tuner.run_in_background(keep_going=True)
    met = len(tuner.examples) - len(known)  # in earlier sessions
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
    status = tuner.status

print(f"{status.step} steps on {status.examples} examples; {dict(counts)}")
