"""Time until a pause takes effect during a run.

    python -m tests.benchmarks.pause [--pauses 50] [--model MODEL] [--int8 BUNDLE]

SmolLM2-135M int8, 16 rows of about 35 tokens per step, on all cores. A thread steps. At random
moments another calls `Tuner.pause(wait=True)`, which returns when no step is being taken any more,
and checks that no step is taken from then on. Two kinds of steps: exact gradients of all blocks,
and one pair of losses over all blocks. For comparison, from the same run without pauses: the time
of a step, and the longest time between two checks of a worker, which is the promise "within one
block".

Targets: the median pause is shorter than the longest time between two checks, the longest pause at
most 50 ms longer (for a busy machine).
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.governors.gate import Gate
from tests.benchmarks import models
from tests.benchmarks.app_run import KINDS, opened
from tests.benchmarks.targets import Target, parser, print_table, print_targets

WARM_UP, TIMED = 6, 10
SLACK_S = 0.05


@dataclass(slots=True)
class Looks:
    """Times at which the workers checked whether to continue.

    Attributes:
        longest_s: the longest time between two checks of a worker within a step.
    """

    longest_s: float = 0.0
    _last: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Record a check of a worker."""
        now, worker = time.perf_counter(), threading.get_ident()
        if worker in self._last:
            self.longest_s = max(self.longest_s, now - self._last[worker])
        self._last[worker] = now

    def end(self) -> None:
        """Record the end of a step."""
        self._last.clear()


@dataclass(frozen=True, slots=True)
class Pauses:
    """Measurements of one kind of steps, in seconds.

    Attributes:
        step_s: a step without pauses, median.
        between_s: the longest time between two checks.
        pauses_s: from the call until no step is being taken.
    """

    step_s: float
    between_s: float
    pauses_s: list[float]

    @property
    def median_s(self) -> float:
        """Of the pauses."""
        return statistics.median(self.pauses_s)


def measure(bundle: Path, kind: str, pauses: int) -> Pauses:
    """Step, then pause."""
    with opened(bundle, kind) as tuner:
        for _ in range(WARM_UP):
            tuner.step()
        step_s, between_s = undisturbed(tuner)
        background = tuner.run_in_background()
        found = paused(tuner, pauses, step_s)
        tuner.cancel()
        background.join()
    return Pauses(step_s, between_s, found)


def undisturbed(tuner: Tuner) -> tuple[float, float]:
    """Median time of a step, and the longest time between two checks."""
    looks, check = Looks(), Gate.check

    def counted(gate: Gate) -> None:
        looks.look()
        check(gate)

    seconds = []
    with patch.object(Gate, "check", counted):
        for _ in range(TIMED):
            seconds.append(tuner.step().elapsed_s)
            looks.end()
    return statistics.median(seconds), looks.longest_s


def paused(tuner: Tuner, pauses: int, step_s: float) -> list[float]:
    """How long each pause took.

    Raises:
        RuntimeError: a step was taken in a pause.
    """
    generator = random.Random(0)
    found = []
    for _ in range(pauses):
        time.sleep(generator.uniform(0.2, 1.5) * step_s)
        started = time.perf_counter()
        tuner.pause(wait=True)
        found.append(time.perf_counter() - started)
        before = tuner.step_number
        time.sleep(0.01)
        if tuner.step_number != before:
            raise RuntimeError(f"step {before} was taken in a pause")
        tuner.resume()
    return found


def report(found: dict[str, Pauses]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    print_table(
        ["steps by", "ms per step", "ms between checks", "pause ms", "worst", "pauses"],
        [
            [
                kind, round(1000 * p.step_s), round(1000 * p.between_s, 1),
                round(1000 * p.median_s, 1), round(1000 * max(p.pauses_s), 1), len(p.pauses_s),
            ]
            for kind, p in found.items()
        ],
    )  # fmt: skip
    targets = []
    for kind, p in found.items():
        bound = 1000 * p.between_s
        worst = 1000 * max(p.pauses_s)
        targets.append(Target(f"ms until a pause, {kind}, median", 1000 * p.median_s, bound))
        targets.append(Target(f"ms until a pause, {kind}, worst", worst, bound + 1000 * SLACK_S))
    return targets


def main() -> int:
    """Prepare, measure, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--pauses", type=int, default=50)
    options = arguments.parse_args()
    with models.prepared(options, "int8", train="ab") as made:
        found = {kind: measure(made.int8, kind, options.pauses) for kind in KINDS}
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
