"""Peak memory of runs on long rows against prediction and budget, quiet and beside busy programs.

    python -m tests.benchmarks.instruction_memory [--sets dolly_hhrlhf,boolq,squad]
                                                  [--budgets 360MB,500MB,750MB,1GB] [--steps 4]
                                                  [--rows all] [--loops 2] [--bundle BUNDLE]

`edgezo tune` with its defaults: SmolLM2-135M int8, first-order steps, 16 rows of up to 512 tokens.
Only the rate is given: to measure it takes as long as some ten steps, in the same passes.
Every run is a process of its own; the peak is the kernel's count. The rows are the heaviest of the
set, as many as the steps take: the longest, and those that score the most tokens. So every step
has a batch like the worst that the whole set would make. `--rows all` takes the whole set; to
reach its worst batch, give `--steps` an epoch.

Every run is made quiet, and beside one busy loop per core: then other stages of the workers
coincide, and a step may take ten times as long.

Targets: every peak within 10 % of the prediction and at or below its budget, no measure against a
shortage of memory.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgezo_runtime.system.sizes import parse_size
from tests.benchmarks.targets import DATA, Target, missing_data, parser, print_table, print_targets
from tests.benchmarks.tasks import TASKS
from tests.benchmarks.tune_child import edgezo

MAX_SEQ, BATCH = 512, 16
MAX_ERROR_PERCENT = 10.0
OPTIONS = {
    "dolly_hhrlhf": [],
    "boolq": TASKS["boolq"].options(),
    "squad": ["--template", "{context}\nQuestion: {question}\nAnswer:"],
}
"""How the rows of each set are read."""


@dataclass(frozen=True, slots=True)
class Case:
    """A run, and what its receipt says.

    Attributes:
        rows: name of the set.
        budget: as given.
        loaded: was it beside busy loops?
        receipt: what the command printed.
    """

    rows: str
    budget: str
    loaded: bool
    receipt: dict[str, Any]

    @property
    def error_percent(self) -> float:
        """How far the peak is off the prediction, in % of the peak."""
        peak: int = self.receipt["peak_bytes"]
        return 100 * abs(self.receipt["predicted_bytes"] - peak) / peak

    def cells(self) -> list[object]:
        """The line of the table."""
        found = self.receipt
        return [
            self.rows,
            self.budget,
            "loaded" if self.loaded else "quiet",
            f"{found['predicted_bytes'] / 1e6:.0f}",
            f"{found['peak_bytes'] / 1e6:.0f}",
            self.error_percent,
            len(found["reliefs"]),
            f"{found['workers']} x {found['chunk_tokens']}",
            found["plan"]["streamed_blocks"],
            found["seconds"] / max(1, found["steps"]),
        ]


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Let so many endless loops run beside what is inside."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def heavy_rows(file: Path, bundle: Path, options: list[str], count: int, target: Path) -> None:
    """Write the heaviest rows of a file, as a bundle's tokenizer and the options make of them."""
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.config import TuneConfig
    from edgezo_runtime.data.batches import heaviest
    from edgezo_runtime.data.sources import read_given

    values = list(zip(options[::2], options[1::2], strict=True))
    template = next((value for name, value in values if name == "--template"), None)
    labels = [value for name, value in values if name == "--label"]
    opened = Bundle.open(bundle)
    examples, _ = read_given(
        opened, file, TuneConfig(), template, labels, MAX_SEQ, train_on="all", long="truncate"
    )
    lines = file.read_text(encoding="utf-8").splitlines()
    chosen = [lines[examples.examples[index].line - 1] for index in heaviest(examples, count)]
    target.write_text("\n".join(chosen) + "\n", encoding="utf-8")


def run(
    rows: dict[str, Path], bundle: Path, budgets: list[str], steps: int, folder: Path, loops: int
) -> list[Case]:
    """Make every run quiet, then loaded.

    Args:
        rows: training rows by set.
        bundle: the model.
        budgets: as for `edgezo tune`.
        steps: of each run.
        folder: for runs and logs.
        loops: busy loops of the loaded runs; 0 makes no such run.
    """
    found: list[Case] = []
    for name, file in rows.items():
        for budget in budgets:
            for loaded in [False, True][: 1 + bool(loops)]:
                place = folder / f"{name}-{budget}-{loaded}"
                command = ["tune", str(bundle), "--data", str(file), "--valid", "none"]
                command += [*OPTIONS[name], "--first-order-lr", "0.001"]
                command += ["--budget", budget, "--steps", str(steps), "--max-time", "0"]
                command += ["--max-seq", str(MAX_SEQ), "-o", str(place)]
                with busy(loops if loaded else 0):
                    receipt = edgezo(command, folder / f"{place.name}.log")
                found.append(Case(name, budget, loaded, receipt))
                print(*found[-1].cells(), file=sys.stderr)
    return found


def report(found: list[Case]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    head = ["rows", "budget", "machine", "predicted MB", "peak MB", "off %", "reliefs", "chunks"]
    print_table([*head, "streamed", "s per step"], [case.cells() for case in found])
    over = max(case.receipt["peak_bytes"] / parse_size(case.budget) for case in found)
    return [
        Target(
            "largest error of a prediction in %",
            max(case.error_percent for case in found),
            MAX_ERROR_PERCENT,
        ),
        Target("largest peak in % of its budget", 100 * over, 100),
        Target("measures taken", sum(len(case.receipt["reliefs"]) for case in found), 0),
    ]


def main() -> int:
    """Prepare, run, report."""
    from edgezo.cli.tune.default_bundle import default_bundle
    from edgezo_runtime.engine.sessions import available_cores

    arguments = parser(__doc__)
    arguments.add_argument("--sets", default=",".join(OPTIONS))
    arguments.add_argument("--budgets", default="360MB,500MB,750MB,1GB")
    arguments.add_argument("--steps", type=int, default=4)
    arguments.add_argument("--rows", choices=["heaviest", "all"], default="heaviest")
    arguments.add_argument("--loops", type=int, default=available_cores())
    arguments.add_argument("--bundle", type=Path, help="another model than the default one")
    arguments.add_argument("--data", type=Path, default=DATA)
    options = arguments.parse_args()
    files = {name: options.data / name / "train.jsonl" for name in options.sets.split(",")}
    if missing_data(list(files.values())):
        return 0
    bundle = options.bundle or default_bundle()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.rows == "heaviest":
            for name, file in files.items():
                files[name] = folder / f"{name}.jsonl"
                count = BATCH * options.steps
                heavy_rows(file, bundle, OPTIONS[name], count, files[name])
        budgets = options.budgets.split(",")
        found = run(files, bundle, budgets, options.steps, folder, options.loops)
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
