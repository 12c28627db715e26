"""Cost of the journal: time per step, bytes of 10,000 steps, time until a run has resumed.

    python -m tests.benchmarks.journal [--steps 10000] [--folder FOLDER] [--data FOLDER]
        [--model MODEL] [--int8 BUNDLE]

On SmolLM2 and SST-2, two-point steps (zo-sgd). The cost of a record under a policy is the median
time of an append, syncs included, in a folder on the disk that --folder names, against the median
of real steps; a run syncs once per second. Then a run of that many steps is made with losses that
are drawn instead of evaluated; snapshots, updates and records are as in a run. It is opened again:
once with its last snapshot, 199 steps back (the maximum), once from the journal alone.

Targets: under 1 % of a step, under 1 MB, under 5 s.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.journal.journal import Journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.journal.sync_policy import SyncPolicy
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.estimators import Probe
from tests.benchmarks import models
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)
from tests.benchmarks.tasks import find_rows
from tests.estimator_runs import run_estimator
from tests.runtime.tuner_runs import unstarted

MAX_SHARE, MAX_BYTES, MAX_RECOVERY_S = 0.01, 1e6, 5.0
REAL_STEPS = 60
POLICIES = {
    "every step": SyncPolicy(every_steps=1),
    "every second": SyncPolicy(every_steps=None, every_s=1.0),
    "never": SyncPolicy(every_steps=None),
}
CONFIG = method_config("zo-sgd", lr=1.0, eps=0.03, steps=10**9, max_time_s=0)


def append_s(folder: Path, policy: SyncPolicy, record: StepRecord, spacing_s: float) -> float:
    """Mean seconds of an append, one per step as in a run.

    Args:
        folder: of the file.
        policy: when it is synced.
        record: of a step.
        spacing_s: seconds between two records.
    """
    spent = []
    with Journal.create(folder / "journal.bin", {}, policy) as journal:
        for _ in range(200):
            time.sleep(spacing_s)
            started = time.perf_counter()
            journal.append(record)
            spent.append(time.perf_counter() - started)
    (folder / "journal.bin").unlink()
    return statistics.fmean(spent)


def invent(tuner: Tuner, steps: int, generator: np.random.Generator) -> None:
    """Take steps with drawn losses: the updates, records and snapshots of a real run."""
    run = tuner.run
    for number in range(tuner.step_number, steps):
        info = run.trajectory.info(1e-4)
        found: list[np.ndarray] = []

        def drawn(probes: list[Probe], found: list[np.ndarray] = found) -> np.ndarray:
            found.append(0.6 + 0.01 * generator.standard_normal((len(probes), 1)))
            return found[-1]

        terms = run_estimator(run.trajectory.parts.estimator, info, drawn)
        record = run.trajectory.record(info, np.concatenate(found), b"", 0.05 * number)
        with run.log.recording(record):
            run.trajectory.apply(record, terms)
        if (number + 1) % tuner.run.config.save_every == 0:
            tuner.snapshot()


def opened_s(bundle: Bundle, rows: ExampleSet, folder: Path) -> float:
    """Seconds until a run can take its next step, with the bundle's graphs open."""
    tuner = unstarted(Engine(bundle), rows, CONFIG, RunFolder(folder))
    started = time.perf_counter()
    tuner.start()
    spent = time.perf_counter() - started
    tuner.close()
    return spent


def main() -> int:
    """Measure, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--steps", type=int, default=10_000)
    arguments.add_argument("--folder", type=Path, help="folder on the disk to measure")
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    options = arguments.parse_args()
    task = find_rows("sst2", options.data)
    if missing_data([task.train]):
        return 0
    with (
        models.prepared(options, "int8") as made,
        tempfile.TemporaryDirectory(dir=options.folder) as name,
    ):
        folder = Path(name)
        bundle = Bundle.open(made.int8)
        manifest = bundle.manifest
        tokenizer = TextTokenizer.open(bundle.root, manifest.tokenizer, task=manifest.model.task)
        rows = load_examples(
            task.train, tokenizer, template=task.task.template, labels=task.task.labels,
            max_seq=manifest.model.max_seq,
        )  # fmt: skip
        with Tuner.open(bundle, rows, CONFIG, folder / "run") as tuner:
            real = [tuner.step().elapsed_s for _ in range(REAL_STEPS)]
            step_s = statistics.median(real)
            info = tuner.run.trajectory.info(1e-4)
            record = StepRecord(0, info.seed, 1e-4, info.blocks, np.ones((2, 1)), extra=bytes(4))
            invent(tuner, options.steps - 1, np.random.default_rng(0))
            kept = tuner.run.folder.journal.stat().st_size
        run = folder / "run"
        costs = {
            what: append_s(folder, policy, record, step_s) for what, policy in POLICIES.items()
        }
        print_table(
            ["records synced", "ms each", "share of a step"],
            [[what, 1e3 * spent, f"{100 * spent / step_s:.3f} %"] for what, spent in costs.items()],
        )
        print(f"a step takes {1e3 * step_s:.1f} ms")
        recovery = {"the last snapshot": opened_s(bundle, rows, run)}
        (run / "snapshot.safetensors").unlink()
        recovery["the journal alone"] = opened_s(bundle, rows, run)
        print_table(["resuming from", "seconds"], [[what, s] for what, s in recovery.items()])
    return print_targets(
        [
            Target("a record's share of a step", costs["every second"] / step_s, MAX_SHARE),
            Target(f"bytes of {options.steps} steps", kept, MAX_BYTES),
            Target("seconds to resume", recovery["the last snapshot"], MAX_RECOVERY_S),
            Target("the same without a snapshot", recovery["the journal alone"], MAX_RECOVERY_S),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
