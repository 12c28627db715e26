"""Tuning and serving on the same loaded blocks, against either alone.

    python -m tests.benchmarks.serve [--rounds 3] [--seconds 10] [--model MODEL] [--int8 BUNDLE]

SmolLM2-135M int8 on all cores. One client classifies rows of about 35 tokens, one after the other,
while a thread takes first-order steps of 16 rows. The sides take turns in one process:

    tune           steps alone
    serve          the client alone, the run paused
    both, turns    the client waits for its turn between the passes of steps
    both, paused   the client asks in `Tuner.paused()`, once per second

Shares are relative to either side alone. If running together cost nothing, the two shares would sum
to 1. Medians over the rounds.

Targets: the shares of "both, turns" sum to .9 or more; a request in `paused()` takes at most 3
times as long as alone; meanwhile steps keep .7 of their rate.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.app.tuner import Tuner
from tests.benchmarks import models
from tests.benchmarks.app_run import opened, text
from tests.benchmarks.targets import Target, parser, print_table, print_targets

SIDES = ("tune", "serve", "both, turns", "both, paused")
WARM_UP = 6
EVERY_S = 1.0
MIN_SUM, MAX_LATENCY, MIN_STEPS = 0.9, 3.0, 0.7


@dataclass(frozen=True, slots=True)
class Side:
    """Work of one side in a round.

    Attributes:
        steps: per second.
        requests: per second.
        latencies_s: of every request.
    """

    steps: float
    requests: float
    latencies_s: tuple[float, ...]


def ask_until(end: float, ask: Callable[[], object], every_s: float) -> list[float]:
    """Ask one request after the other, or at intervals; return the time of each."""
    found = []
    due = time.perf_counter()
    while (now := time.perf_counter()) < end:
        if now < due:
            time.sleep(min(due, end) - now)
            continue
        due = now + every_s
        ask()
        found.append(time.perf_counter() - now)
    return found


def measure(tuner: Tuner, side: str, seconds: float, generator: random.Random) -> Side:
    """Measure one side; the run steps in the background."""

    def ask() -> None:
        tuner.classify(text(generator))

    def ask_paused() -> None:
        with tuner.paused():
            ask()

    if side == "serve":
        tuner.pause(wait=True)
    steps, started = tuner.step_number, time.perf_counter()
    latencies: list[float] = []
    if side == "tune":
        time.sleep(seconds)
    else:
        every_s = EVERY_S if side == "both, paused" else 0.0
        latencies = ask_until(started + seconds, ask_paused if every_s else ask, every_s)
    spent = time.perf_counter() - started
    done = tuner.step_number - steps
    tuner.resume()
    return Side(done / spent, len(latencies) / spent, tuple(latencies))


def compare(bundle: Path, rounds: int, seconds: float) -> dict[str, list[Side]]:
    """Let the sides take turns."""
    generator = random.Random(1)
    found: dict[str, list[Side]] = {side: [] for side in SIDES}
    with opened(bundle, "first-order") as tuner:
        for _ in range(WARM_UP):
            tuner.step()
        background = tuner.run_in_background()
        for _ in range(rounds):
            for side, measured in found.items():
                measured.append(measure(tuner, side, seconds, generator))
        tuner.cancel()
        background.join()
    return found


def report(found: dict[str, list[Side]]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    steps = {side: statistics.median(s.steps for s in runs) for side, runs in found.items()}
    asked = {side: statistics.median(s.requests for s in runs) for side, runs in found.items()}
    times = {side: sorted(t for s in runs for t in s.latencies_s) for side, runs in found.items()}
    rows: list[list[object]] = []
    for side, own in times.items():
        waits = [1000 * statistics.median(own), 1000 * own[len(own) * 95 // 100]] if own else []
        shown = [f"{wait:.0f}" for wait in waits] or ["", ""]
        share, served = steps[side] / steps["tune"], asked[side] / asked["serve"]
        rows.append([side, steps[side], share, asked[side], served, *shown])
    print_table(["", "steps/s", "share", "requests/s", "share", "median ms", "95 % ms"], rows)
    turns = steps["both, turns"] / steps["tune"] + asked["both, turns"] / asked["serve"]
    latency = statistics.median(times["both, paused"]) / statistics.median(times["serve"])
    kept = steps["both, paused"] / steps["tune"]
    return [
        Target("shares of both, summed", turns, MIN_SUM, True),
        Target("a request in paused(), times one alone", latency, MAX_LATENCY),
        Target("steps beside requests in paused()", kept, MIN_STEPS, True),
    ]


def main() -> int:
    """Prepare, compare, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=10.0, help="seconds per side and round")
    options = arguments.parse_args()
    with models.prepared(options, "int8", train="ab") as made:
        found = compare(made.int8, options.rounds, options.seconds)
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
